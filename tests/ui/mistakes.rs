//! Mistakes that the compiler refuses, and what it says of them.

#[test]
fn mistakes_do_not_compile() {
    trybuild::TestCases::new().compile_fail("cases/*.rs");
}
