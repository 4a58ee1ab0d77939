//! User and password, as URLs and flags give them.

use crate::store::StoreError;

/// Splits `USER@HOSTS`; without an @ there is no user. The last @ counts, since a password may hold others.
pub fn split_user(authority: &str) -> (Option<&str>, &str) {
    authority.rsplit_once('@').map_or((None, authority), |(user, hosts)| (Some(user), hosts))
}

/// Splits `NAME:PASSWORD`; without a colon there is no password.
pub fn split_password(user: &str) -> (&str, Option<&str>) {
    user.split_once(':').map_or((user, None), |(name, password)| (name, Some(password)))
}

/// The text, unless it is empty.
pub fn non_empty(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// The error for a user without a password; `sources` lists where a password may be given.
pub fn missing_password(user: &str, sources: &str) -> StoreError {
    StoreError::Misused(format!("{user} has no password: give it with {sources}"))
}
