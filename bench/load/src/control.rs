//! What the programs have in common that are driven by another one: commands come in lines, events go out in lines of
//! JSON.

use std::io::{self, Write};
use std::sync::mpsc::Sender;

use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::Value;

/// Reads commands from standard input and wakes who obeys them. Ends with the input, and drops the sender then: who
/// started the program is gone. A line that is no command is answered on standard error.
pub fn read_commands<C>(commands: Sender<C>, waker: &mio::Waker, read: impl Fn(&str) -> Result<C, String>) {
    for line in io::stdin().lines().map_while(Result::ok) {
        match read(&line) {
            Ok(command) => {
                if commands.send(command).is_err() || waker.wake().is_err() {
                    return;
                }
            }
            Err(text) => eprintln!("{text}"),
        }
    }
    drop(commands);
    let _ = waker.wake();
}

/// A command as it comes: a word, and an object of numbers.
#[derive(Debug)]
pub struct Line<'a> {
    /// What to do.
    pub word: &'a str,
    values: Value,
}

impl<'a> Line<'a> {
    /// Takes a line apart.
    ///
    /// # Errors
    ///
    /// When what follows the word is no JSON: for people.
    pub fn read(line: &'a str) -> Result<Self, String> {
        let (word, rest) = line.trim().split_once(' ').unwrap_or_else(|| (line.trim(), "{}"));
        let values = serde_json::from_str(rest).map_err(|error| format!("`{rest}` is no JSON: {error}"))?;
        Ok(Self { word, values })
    }

    /// The number of this name, which is above 0 and below a billion.
    ///
    /// # Errors
    ///
    /// When there is none: for people.
    pub fn number(&self, name: &str) -> Result<f64, String> {
        let positive = self.values[name].as_f64().filter(|number| *number > 0.0 && *number < 1e9);
        positive.ok_or_else(|| format!("`{}` needs a positive `{name}`", self.word))
    }
}

/// A line for who started this. Without a reader there is nobody to tell that to.
pub fn tell(event: &Value) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{event}").and_then(|()| out.flush());
}

/// Lets this process have as many descriptors as it may.
///
/// # Errors
///
/// When the system refuses: for people.
pub fn raise_descriptor_limit() -> Result<(), String> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).map_err(|error| format!("the limit of descriptors: {error}"))
}
