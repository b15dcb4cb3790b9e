//! Errors of other people's code, shared so that an [`Error`](crate::Error) that holds one can be cloned.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// An error from somebody else's code: a database driver, a KMS client, an upcaster of the application.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What a KMS client said: [`KmsFault::Unavailable`](crate::error::KmsFault::Unavailable) has it as its
/// [`source`](std::error::Error::source), from which the client's own error can be downcast.
///
/// It can be made of a text, or of any error: `SharedError::from(BoxError::from(error))`. Its `Debug` and `Display` are
/// those of that error, which must quote no key.
#[derive(Clone)]
pub struct SharedError(Arc<dyn std::error::Error + Send + Sync + 'static>);

impl From<BoxError> for SharedError {
    fn from(error: BoxError) -> Self {
        Self(error.into())
    }
}

impl From<&str> for SharedError {
    fn from(text: &str) -> Self {
        BoxError::from(text).into()
    }
}

impl From<String> for SharedError {
    fn from(text: String) -> Self {
        BoxError::from(text).into()
    }
}

// thiserror makes the target of `Deref` the source, so that callers can downcast it to the client's own error.
impl Deref for SharedError {
    type Target = dyn std::error::Error + Send + Sync + 'static;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Debug for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// An error that the application's own code returned: a step, or a consumer.
///
/// It is also the [`source`](std::error::Error::source) of [`EventFault::Upcast`](crate::error::EventFault::Upcast) and
/// [`Error::Consumer`](crate::Error::Consumer). Its `Debug` shows nothing, because the application's error may show
/// payload values. To print it on purpose, dereference it.
#[derive(Clone)]
pub struct StepError(Arc<dyn std::error::Error + Send + Sync + 'static>);

impl StepError {
    pub(crate) fn new(error: BoxError) -> Self {
        Self(error.into())
    }
}

impl Deref for StepError {
    type Target = dyn std::error::Error + Send + Sync + 'static;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Debug for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StepError(…)")
    }
}
