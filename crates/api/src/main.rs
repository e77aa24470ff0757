//! `mundap`: settings -> telemetry -> command, and nothing else.

use std::process::ExitCode;

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
    if let Err(error) = telemetry::start_logging(&cli.settings) {
        eprintln!("mundap: MUNDAP_LOG is not a filter: {error}");
        return ExitCode::from(2);
    }
    match actix_web::rt::System::new().block_on(command::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("mundap: {fault}");
            fault.exit_code()
        }
    }
}
