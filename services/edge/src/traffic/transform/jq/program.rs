//! A program, compiled once and run for each call.

use std::{fmt, io, ops::Range, thread};

use jaq_core::{
    Compiler, Ctx, Filter, Vars, compile,
    load::{self, Arena, File, Loader, lex, span},
};
use serde_json::Value as Json;

use super::{
    Jq, MeteredLut,
    functions::{definitions, functions},
    meter::{
        self, FULL, LimitExceeded, RunAborted, RunLimits, SHORT, SHORT_STACK_BYTES, STACK_BYTES,
    },
    regexes,
    value::{JqValue, ValueError},
};

/// The longest program, in bytes.
const PROGRAM_BYTES_MAX: usize = 16 * 1024;
/// The longest error message of a program, in characters.
const MESSAGE_CHARS_MAX: usize = 300;
/// The variable that a program has besides its input.
const PRINCIPAL: &str = "$principal";

/// Why a program does not compile, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub(crate) struct CompileError {
    pub(crate) problem: String,
    /// The place in the program, in bytes.
    pub(crate) span: Range<usize>,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    /// The program raised an error. The message has no values, except those that the program puts
    /// in.
    #[error("it raised an error: {0}")]
    Raised(String),
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    #[error("it produced no output")]
    NoOutput,
    #[error("it produced more than one output")]
    ManyOutputs,
    #[error("its input {0}")]
    Input(ValueError),
    #[error("its output {0}")]
    Output(ValueError),
    #[error("its output is not a JSON object")]
    NotAnObject,
    #[error("its output does not match its output_schema: {0}")]
    Schema(String),
    #[error("the result has no structured content")]
    Unstructured,
    #[error("the interpreter failed")]
    Panic,
    #[error("cannot start a thread for it")]
    Thread(#[from] io::Error),
    #[error("too many programs are running")]
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
    pub(crate) fn compile(text: &str) -> Result<Self, CompileError> {
        let error = |problem: &str| CompileError { problem: problem.to_owned(), span: 0..0 };
        if text.len() > PROGRAM_BYTES_MAX {
            return Err(error(&format!("it exceeds {PROGRAM_BYTES_MAX} bytes")));
        }
        on_thread(|| compile_filter(text)).map_err(|io| error(&io.to_string()))?.map(Self)
    }

    /// Runs on this thread, whose stack must have [`STACK_BYTES`].
    pub(crate) fn run(&self, input: &Json, principal: &Json) -> Result<Json, ProgramError> {
        self.run_within(&FULL, input, principal)
    }

    /// Runs on the calling thread within the limits of a short run. `None` where those do not
    /// suffice, without any effect.
    pub(crate) fn run_short(
        &self,
        input: &Json,
        principal: &Json,
    ) -> Option<Result<Json, ProgramError>> {
        stacker::remaining_stack().filter(|bytes| *bytes >= SHORT_STACK_BYTES)?;
        match self.run_within(&SHORT, input, principal) {
            Err(ProgramError::Limit(_) | ProgramError::Input(_) | ProgramError::Output(_)) => None,
            outcome => Some(outcome),
        }
    }

    fn run_within(
        &self,
        limits: &RunLimits,
        input: &Json,
        principal: &Json,
    ) -> Result<Json, ProgramError> {
        let bytes_max = limits.value_bytes;
        let outcome = meter::within(limits, || {
            let input = JqValue::read(input, bytes_max).map_err(ProgramError::Input)?;
            let principal = JqValue::read(principal, bytes_max).map_err(ProgramError::Input)?;
            regexes::clear_cache();
            self.output(input, principal)?.write(bytes_max).map_err(ProgramError::Output)
        });
        outcome.unwrap_or_else(|aborted| match aborted {
            RunAborted::Limit(limit) => Err(limit.into()),
            RunAborted::Panic => Err(ProgramError::Panic),
        })
    }

    /// Runs on a new thread.
    pub(crate) fn run_on_thread(
        &self,
        input: &Json,
        principal: &Json,
    ) -> Result<Json, ProgramError> {
        on_thread(|| self.run(input, principal))?
    }

    fn output(&self, input: JqValue, principal: JqValue) -> Result<JqValue, ProgramError> {
        let context = Ctx::<Jq>::new(MeteredLut(&self.0.lut), Vars::new([principal]));
        let mut outputs = self.0.id.run((context, input));
        let output = match outputs.next() {
            None => return Err(ProgramError::NoOutput),
            Some(Ok(output)) => output,
            Some(Err(exception)) => {
                let error = exception.get_err().map(|error| error.into_val());
                let error = error.ok();
                let message = error.as_ref().and_then(JqValue::text).unwrap_or("not a text");
                return Err(ProgramError::Raised(
                    message.chars().take(MESSAGE_CHARS_MAX).collect(),
                ));
            }
        };
        if outputs.next().is_some() {
            return Err(ProgramError::ManyOutputs);
        }
        Ok(output)
    }
}

/// Runs a function that may recurse deeply on a new thread.
fn on_thread<T: Send>(run: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, run)?;
        thread.join().map_err(|_| io::Error::other("the thread panicked"))
    })
}

fn compile_filter(text: &str) -> Result<Filter<Jq>, CompileError> {
    let arena = Arena::default();
    let modules = Loader::new(definitions()).load(&arena, File { code: text, path: () });
    let modules = modules.map_err(|errors| {
        first_error(errors.into_iter().map(|(file, error)| loading_error(file.code, error)))
    })?;
    load::import(&modules, |_| Err("module loading not supported".to_owned())).map_err(
        |errors| {
            first_error(errors.into_iter().map(|(file, error)| loading_error(file.code, error)))
        },
    )?;
    let compiler = Compiler::default().with_funs(functions()).with_global_vars([PRINCIPAL]);
    compiler.compile(modules).map_err(|errors| {
        first_error(
            errors.into_iter().filter_map(|(file, errors)| compiling_error(file.code, &errors)),
        )
    })
}

fn first_error(mut errors: impl Iterator<Item = CompileError>) -> CompileError {
    errors
        .next()
        .unwrap_or_else(|| CompileError { problem: "it cannot be compiled".to_owned(), span: 0..0 })
}

fn loading_error(code: &str, error: load::Error<&str>) -> CompileError {
    let found = match error {
        load::Error::Io(files) => {
            files.first().map(|(path, error)| (error.clone(), span(code, path)))
        }
        load::Error::Lex(errors) => errors.into_iter().next().map(|(expected, found)| {
            let at = match expected {
                // The unclosed delimiter is more helpful than the end of the text.
                lex::Expect::Delim(open) => span(code, open),
                _ => span(code, &found[..found.chars().next().map_or(0, char::len_utf8)]),
            };
            (format!("expected {}", expected.as_str()), at)
        }),
        load::Error::Parse(errors) => errors.into_iter().next().map(|(expected, found)| {
            (format!("expected {}", expected.as_str()), span(code, found))
        }),
    };
    first_error(found.map(|(problem, span)| CompileError { problem, span }).into_iter())
}

fn compiling_error(code: &str, errors: &[compile::Error<&str>]) -> Option<CompileError> {
    let (name, undefined) = errors.first()?;
    let problem = match undefined {
        compile::Undefined::Filter(arity) => format!("undefined filter {name}/{arity}"),
        other => format!("undefined {} {name}", other.as_str()),
    };
    Some(CompileError { problem, span: span(code, name) })
}
