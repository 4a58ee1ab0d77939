//! Untrusted input for unit tests: a property is tried on many values, and one that breaks it is told as small as
//! it can be made.

use std::fmt::Debug;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestError, TestRunner};
use serde_json::Value;

/// Where one try takes microseconds: how many in every run, and with `ELECT_LONG=1`.
pub const FAST: [u32; 2] = [3_000, 1_000_000];
/// Where it takes a file or a connection.
pub const SLOW: [u32; 2] = [200, 20_000];

/// Tries the property on many values.
///
/// # Panics
///
/// The property panics for one of them.
#[track_caller]
pub fn check<S: Strategy>([few, many]: [u32; 2], values: &S, property: impl Fn(S::Value))
where
    S::Value: Debug,
{
    let is_long = std::env::var_os("ELECT_LONG").is_some_and(|value| value == "1");
    let cases = if is_long { many } else { few };
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(values, |value| {
        property(value);
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, value)) => panic!("does not hold for {value:?}: {reason}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

/// Any text, control characters included.
pub fn text() -> impl Strategy<Value = String> {
    let char =
        prop_oneof![4 => any::<char>(), 2 => prop::char::range(' ', '~'), 1 => prop::char::range('\0', '\u{1f}')];
    vec(char, 0..40).prop_map(String::from_iter)
}

/// Short texts of what means something somewhere.
pub fn punctuation() -> impl Strategy<Value = String> {
    vec(prop::sample::select(b":/@,?#%[]=&. \\\"\n019af".to_vec()), 0..6)
        .prop_map(|bytes| bytes.into_iter().map(char::from).collect())
}

/// Random bytes.
pub fn random_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..80), text().prop_map(String::into_bytes)]
}

/// Something valid with one place of it overwritten, cut out or lengthened; sometimes as it is.
pub fn corrupted(valid: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (
        valid,
        any::<Index>(),
        0..5_usize,
        random_bytes().prop_map(|mut noise| noise.split_off(noise.len().saturating_sub(4))),
    )
        .prop_map(|(mut bytes, at, gone, new)| {
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..bytes.len().min(at + gone), new);
            bytes
        })
}

/// A valid object with a field of it replaced by something of another kind, or gone.
///
/// # Panics
///
/// The valid bytes are no JSON object.
pub fn wrong_types(valid: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let other = prop_oneof![
        Just(Some(Value::Null)),
        any::<bool>().prop_map(|value| Some(value.into())),
        any::<i64>().prop_map(|value| Some(value.into())),
        any::<u64>().prop_map(|value| Some(value.into())),
        any::<f64>().prop_map(|value| Some(value.into())),
        text().prop_map(|value| Some(value.into())),
        vec(any::<u8>(), 0..3).prop_map(|value| Some(value.into())),
        Just(Some(Value::Object(serde_json::Map::new()))),
        Just(None),
    ];
    (valid, any::<Index>(), other).prop_map(|(bytes, which, other)| {
        let mut value: Value = serde_json::from_slice(&bytes).expect("an object");
        let fields = value.as_object_mut().expect("an object");
        let name = fields.keys().nth(which.index(fields.len())).expect("it has fields").clone();
        match other {
            Some(other) => drop(fields.insert(name, other)),
            None => drop(fields.remove(&name)),
        }
        value.to_string().into_bytes()
    })
}
