//! The configuration: text from four layers in, checked settings out.
//!
//! One table, [`Settings::table`], is the only place where a setting is declared. Its key in the
//! file, its environment variable, its flag, its help, its bounds, its default, `check --print` and
//! the check of docs/configuration.md all follow from the row.
//!
//! Laws kept here:
//! - flag over environment over file over default, and each value knows which of them it is from;
//! - the start stops with all problems at once, never with the first of them;
//! - a secret is shown nowhere: not in an error, not in [`Loaded::print`], not in `Debug`;
//! - no module but this one reads the process environment, and it does so in one function,
//!   [`Environment::read`].

mod element;
mod environment;
mod file;
mod flags;
mod layers;
mod loaded;
mod parse;
mod problems;
mod rules;
mod settings;
mod suggest;
mod table;
mod units;
mod value;

#[cfg(test)]
mod tests;

pub use element::Element;
pub use environment::Environment;
pub use flags::flags;
#[doc(hidden)]
pub use layers::assemble;
pub use layers::{Override, load, load_with};
pub use loaded::{Loaded, Origin};
pub use problems::{Problem, Problems};
pub use settings::{DefaultValue, Kind, Section, Setting, Settings};
pub use units::{UnitError, duration_text, parse_duration, parse_size, size_text};
pub use value::Secret;
