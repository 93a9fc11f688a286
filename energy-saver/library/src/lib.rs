//! The customer's templates.
