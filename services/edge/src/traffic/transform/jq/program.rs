//! A program: compiled once, run for each call.

use std::{fmt, io, ops::Range, thread};

use jaq_core::{
    Compiler, Ctx, Filter, Vars, compile,
    load::{self, Arena, File, Loader, lex, span},
};
use serde_json::Value as Json;

use super::{
    Jq, Scope,
    functions::{definitions, functions},
    meter::{self, Allowance, BRIEF_STACK_BYTES, Ended, SHORT, STACK_BYTES, Spent, WHOLE},
    regexes,
    value::{Unfit, Value},
};

/// The longest program, in bytes.
const PROGRAM_BYTES_MAX: usize = 16 * 1024;
/// The longest message of a program that is told, in characters.
const MESSAGE_CHARS_MAX: usize = 300;
/// What a program knows besides its input.
const PRINCIPAL: &str = "$principal";

/// What is wrong with the text of a program, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub(crate) struct Mistake {
    pub(crate) problem: String,
    /// In bytes of the program.
    pub(crate) at: Range<usize>,
}

/// Why a run gave nothing that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The program says so, or does what cannot be done. It says no value, unless the program put one in.
    #[error("it ends with an error: {0}")]
    Error(String),
    #[error(transparent)]
    Spent(#[from] Spent),
    #[error("it gives no output")]
    Nothing,
    #[error("it gives more than one output")]
    Many,
    #[error("its input {0}")]
    Input(Unfit),
    #[error("its output {0}")]
    Output(Unfit),
    #[error("its output is no object")]
    NoObject,
    #[error("its output does not fit its output_schema: {0}")]
    Schema(String),
    #[error("there is nothing structured for it to read")]
    Unstructured,
    #[error("the interpreter failed")]
    Broken,
    #[error("there is no thread for it")]
    Thread(#[from] io::Error),
    #[error("too many programs run now")]
    Busy,
}

/// A compiled program.
pub(crate) struct Program(Filter<Jq>);

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Program")
    }
}

impl Program {
    pub(crate) fn compile(text: &str) -> Result<Self, Mistake> {
        let mistake = |problem: &str| Mistake { problem: problem.to_owned(), at: 0..0 };
        if text.len() > PROGRAM_BYTES_MAX {
            return Err(mistake(&format!("it is longer than {PROGRAM_BYTES_MAX} bytes")));
        }
        deep(|| compiled(text)).map_err(|error| mistake(&error.to_string()))?.map(Self)
    }

    /// Runs on a thread whose stack has [`STACK_BYTES`].
    pub(crate) fn run(&self, input: &Json, principal: &Json) -> Result<Json, Failure> {
        self.run_within(&WHOLE, input, principal)
    }

    /// Runs on whatever thread this is, which is not kept for long: none where the run is not a short one. Nothing has
    /// come of it then.
    pub(crate) fn run_briefly(
        &self,
        input: &Json,
        principal: &Json,
    ) -> Option<Result<Json, Failure>> {
        stacker::remaining_stack().filter(|bytes| *bytes >= BRIEF_STACK_BYTES)?;
        match self.run_within(&SHORT, input, principal) {
            Err(Failure::Spent(_) | Failure::Input(_) | Failure::Output(_)) => None,
            outcome => Some(outcome),
        }
    }

    fn run_within(
        &self,
        allowance: &Allowance,
        input: &Json,
        principal: &Json,
    ) -> Result<Json, Failure> {
        let bytes_max = allowance.value_bytes;
        let ran = meter::within(allowance, || {
            let input = Value::read(input, bytes_max).map_err(Failure::Input)?;
            let principal = Value::read(principal, bytes_max).map_err(Failure::Input)?;
            regexes::forget();
            self.output(input, principal)?.write(bytes_max).map_err(Failure::Output)
        });
        ran.unwrap_or_else(|ended| match ended {
            Ended::Spent(spent) => Err(spent.into()),
            Ended::Broken => Err(Failure::Broken),
        })
    }

    /// Runs on a thread of its own.
    pub(crate) fn run_alone(&self, input: &Json, principal: &Json) -> Result<Json, Failure> {
        deep(|| self.run(input, principal))?
    }

    fn output(&self, input: Value, principal: Value) -> Result<Value, Failure> {
        let context = Ctx::<Jq>::new(Scope(&self.0.lut), Vars::new([principal]));
        let mut outputs = self.0.id.run((context, input));
        let output = match outputs.next() {
            None => return Err(Failure::Nothing),
            Some(Ok(output)) => output,
            Some(Err(exception)) => {
                let error = exception.get_err().map(|error| error.into_val());
                let said =
                    error.ok().as_ref().and_then(Value::text).unwrap_or("of its own").to_owned();
                return Err(Failure::Error(said.chars().take(MESSAGE_CHARS_MAX).collect()));
            }
        };
        if outputs.next().is_some() {
            return Err(Failure::Many);
        }
        Ok(output)
    }
}

/// Does something that may nest deep, on a thread of its own.
fn deep<T: Send>(run: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, run)?;
        thread.join().map_err(|_| io::Error::other("it ended early"))
    })
}

fn compiled(text: &str) -> Result<Filter<Jq>, Mistake> {
    let arena = Arena::default();
    let modules = Loader::new(definitions()).load(&arena, File { code: text, path: () });
    let modules = modules.map_err(|errors| {
        first(errors.into_iter().map(|(file, error)| of_loading(file.code, error)))
    })?;
    load::import(&modules, |_| Err("module loading not supported".to_owned())).map_err(
        |errors| first(errors.into_iter().map(|(file, error)| of_loading(file.code, error))),
    )?;
    let compiler = Compiler::default().with_funs(functions()).with_global_vars([PRINCIPAL]);
    compiler.compile(modules).map_err(|errors| {
        first(errors.into_iter().filter_map(|(file, errors)| of_compiling(file.code, &errors)))
    })
}

fn first(mut mistakes: impl Iterator<Item = Mistake>) -> Mistake {
    mistakes
        .next()
        .unwrap_or_else(|| Mistake { problem: "it cannot be compiled".to_owned(), at: 0..0 })
}

fn of_loading(code: &str, error: load::Error<&str>) -> Mistake {
    let found = match error {
        load::Error::Io(files) => {
            files.first().map(|(path, error)| (error.clone(), span(code, path)))
        }
        load::Error::Lex(errors) => errors.into_iter().next().map(|(expected, found)| {
            let at = match expected {
                // What is never closed is more to the point than the end.
                lex::Expect::Delim(open) => span(code, open),
                _ => span(code, &found[..found.chars().next().map_or(0, char::len_utf8)]),
            };
            (format!("expected {}", expected.as_str()), at)
        }),
        load::Error::Parse(errors) => errors.into_iter().next().map(|(expected, found)| {
            (format!("expected {}", expected.as_str()), span(code, found))
        }),
    };
    first(found.map(|(problem, at)| Mistake { problem, at }).into_iter())
}

fn of_compiling(code: &str, errors: &[compile::Error<&str>]) -> Option<Mistake> {
    let (name, undefined) = errors.first()?;
    let problem = match undefined {
        compile::Undefined::Filter(arity) => format!("there is no filter {name}/{arity} here"),
        other => format!("there is no {} {name}", other.as_str()),
    };
    Some(Mistake { problem, at: span(code, name) })
}
