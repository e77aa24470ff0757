//! `mundap`: settings -> telemetry -> command, and nothing else.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use mundap_api::command::Ending;
use mundap_api::settings::Cli;
use mundap_api::{command, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => {
            tell(&error);
            return ExitCode::from(2);
        }
    };
    let traces = match telemetry::traces(&cli) {
        Ok(traces) => traces,
        Err(error) => {
            tell(&error);
            return ExitCode::from(2);
        }
    };
    let log = match telemetry::start_logging(&cli.settings, traces) {
        Ok(log) => log,
        Err(error) => {
            tell(&format_args!("MUNDAP_LOG is not a filter: {error}"));
            return ExitCode::from(2);
        }
    };
    let system = actix_web::rt::System::new();
    let outcome = system.block_on(command::run(cli));
    drop(log);
    let code = match outcome {
        Ok(Ending::Whole) => 0,
        // What is left of it would wait for, or need, a runtime that is about to go.
        Ok(Ending::AtOnce) => std::process::exit(0),
        Err(fault) => {
            tell(&fault);
            fault.exit_code()
        }
    };
    end_within(LAST_READS, code);
    // Waits for what threads were reading or writing.
    drop(system);
    ExitCode::from(code)
}

/// A refusal to start is one plain line, also before logging is there. Where it cannot be written, the exit code is left.
fn tell(reason: &dyn Display) {
    let _ = writeln!(std::io::stderr(), "mundap: {reason}");
}

/// How long what is being read or written may still take once nobody waits for it.
const LAST_READS: Duration = Duration::from_secs(2);

/// Ends the process by then, come what may: a read on a file system that hangs cannot be given up.
#[expect(clippy::disallowed_methods, reason = "a thread of its own, which blocks no worker")]
fn end_within(limit: Duration, code: u8) {
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        std::process::exit(code.into());
    });
}
