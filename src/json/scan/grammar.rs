//! The grammar of JSON: methods of the scanner that read a value and skip it. Nothing here knows which places are
//! wanted.

use crate::json::scan::cursor::{Name, Read};
use crate::json::scan::{MAX_DEPTH, ScanError, Scanner};

impl<'a> Scanner<'a> {
    /// Skips a value in which nothing is wanted.
    #[inline]
    pub(crate) fn skip_value(&mut self) -> Read {
        match self.here.peek() {
            b'{' | b'[' => self.skip_container(),
            first => self.here.scalar(first),
        }
    }

    /// Skips an object or array, without recursion.
    fn skip_container(&mut self) -> Read {
        // One bit per open container: set for an object.
        let mut objects = 0_u128;
        let mut depth = self.depth;
        let mut here = self.here;
        'values: loop {
            // A value starts here.
            match here.peek() {
                open @ (b'{' | b'[') => {
                    if depth == MAX_DEPTH {
                        return Err(ScanError::TooDeep.into());
                    }
                    here.pass();
                    let is_object = open == b'{';
                    if here.space() != if is_object { b'}' } else { b']' } {
                        depth += 1;
                        objects = objects << 1 | u128::from(is_object);
                        if is_object {
                            here.name("a member name is expected")?;
                        }
                        continue;
                    }
                    here.pass();
                }
                first => here.scalar(first)?,
            }
            // A value ended here.
            while depth > self.depth {
                let in_object = objects & 1 == 1;
                match here.space() {
                    b',' => {
                        here.pass();
                        here.space();
                        if in_object {
                            here.name("a member name is expected")?;
                        }
                        continue 'values;
                    }
                    b'}' if in_object => {}
                    b']' if !in_object => {}
                    _ => return here.fail(if in_object { "',' or '}' is expected" } else { "',' or ']' is expected" }),
                }
                here.pass();
                objects >>= 1;
                depth -= 1;
            }
            self.here = here;
            return Ok(());
        }
    }

    /// Reads the name of a member, up to its value.
    #[inline]
    pub(crate) fn member(&mut self) -> Read<Name<'a>> {
        self.here.name("a member name or '}' is expected")
    }

    #[inline]
    pub(crate) fn enter(&mut self) -> Read {
        if self.depth == MAX_DEPTH {
            return Err(ScanError::TooDeep.into());
        }
        self.depth += 1;
        self.here.pass();
        Ok(())
    }

    #[allow(clippy::unnecessary_wraps, reason = "ends the functions that can fail")]
    #[inline]
    pub(crate) fn leave(&mut self) -> Read {
        self.depth -= 1;
        self.here.pass();
        Ok(())
    }
}
