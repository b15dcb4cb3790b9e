//! Statements that read the log filtered by types.

/// Reads the log of these types ($3), after a position ($1), up to a limit ($2).
///
/// Each type is a range of the index on the column and the position. So the cost of a page depends on its size, and not
/// on the number of events of other types. The range is a comparison of rows, which no other index can answer. With
/// `=`, PostgreSQL would walk the log in order of position if it believes that a type is frequent, and it has no better
/// knowledge of a type that it has not counted. Rows are fetched last, one by one by position, however many PostgreSQL
/// expects.
pub(crate) fn by(column: &str, and: &str) -> String {
    r"
    SELECT e.* FROM (
        SELECT one.at FROM UNNEST($3::text[]) AS type (name)
        CROSS JOIN LATERAL (
            SELECT e.global_position AS at FROM {events} AS e
            WHERE (e.{column}, e.global_position) > (type.name, $1)
                AND (e.{column}, e.global_position) <= (type.name, 9223372036854775807) {and}
            ORDER BY e.{column}, e.global_position LIMIT $2
        ) AS one
        ORDER BY one.at LIMIT $2
    ) AS page
    CROSS JOIN LATERAL (
        SELECT {columns}, {aggregate_type}, {aggregate_id} FROM {events} WHERE global_position = page.at OFFSET 0
    ) AS e
    ORDER BY page.at"
        .replace("{column}", column)
        .replace("{and}", and)
}
