//! `mundap`: settings -> telemetry -> command, and nothing else.

use std::process::ExitCode;
use std::time::Duration;

use mundap_api::settings::Cli;
use mundap_api::{command, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(clippy::print_stderr, reason = "a refusal to start is one plain line, also before logging is there")]
fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => {
            eprintln!("mundap: {error}");
            return ExitCode::from(2);
        }
    };
    let traces = match telemetry::traces(&cli) {
        Ok(traces) => traces,
        Err(error) => {
            eprintln!("mundap: {error}");
            return ExitCode::from(2);
        }
    };
    let log = match telemetry::start_logging(&cli.settings, traces) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("mundap: MUNDAP_LOG is not a filter: {error}");
            return ExitCode::from(2);
        }
    };
    let system = actix_web::rt::System::new();
    let outcome = system.block_on(command::run(cli));
    drop(log);
    let code = match outcome {
        Ok(()) => 0,
        Err(fault) => {
            eprintln!("mundap: {fault}");
            fault.exit_code()
        }
    };
    end_within(LAST_READS, code);
    // Waits for what threads were reading or writing.
    drop(system);
    ExitCode::from(code)
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
