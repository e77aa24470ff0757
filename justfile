# What is done here every day; `just` lists it.
# To get just: cargo install just --locked, or pip install rust-just

[private]
list:
    @{{ just_executable() }} --justfile {{ justfile() }} --list --unsorted

# Serve the board on the embedded database
run *args:
    cargo run --release -- {{ args }}

# watchexec: cargo install watchexec-cli --locked

# Serve it, and build and start it anew after each change
dev *args:
    watchexec --restart --stop-timeout 30s --watch Cargo.toml --watch crates --watch migration -- cargo run -- {{ args }}

# Run all tests on the databases that need no set-up
test *args:
    cargo test --workspace {{ args }}

# Run all tests on these servers too, separated by commas (mysql://user:password@host:port)
test-mysql urls *args:
    MUNDAP_TEST_MYSQL_URLS='{{ urls }}' cargo test --workspace {{ args }}

# Measure the memory and the time that bombs and the largest images take
bombs:
    cargo test --release --workspace --test picture -- --ignored --nocapture

# Format everything
fmt:
    cargo fmt --all

# Check format and lints as CI does
lint:
    cargo fmt --all -- --check
    cargo clippy --workspace --all-targets -- -D warnings

# Build the crates' documentation (`just doc --open` shows it)
doc *args:
    RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items {{ args }}

# cargo-deny: cargo install cargo-deny --locked

# Check licences, sources, bans and advisories
deny:
    cargo deny check

# Fuzz the API against its OpenAPI document (Python 3; cases an operation, and the seed of an earlier run to repeat it)
fuzz-api cases="50" seed="":
    bash .ci/fuzz-api {{ cases }} {{ seed }}

# Fuzz the parsers (a C++ compiler; seconds for all targets together, or for those that are named)
fuzz seconds="60" *targets:
    bash .ci/fuzz {{ seconds }} {{ targets }}

# Run what CI runs
ci:
    bash .ci/run

# Migrate the database: up, down or status
migrate *args="up":
    cargo run -- migrate {{ args }}

# Print the OpenAPI document
openapi:
    @cargo run --quiet -- openapi

# Hold so many silent connections beside a healthy client (ulimit -n must allow them)
slow-connections n="10000":
    ulimit -n $(ulimit -Hn) && MUNDAP_TEST_CONNECTIONS={{ n }} cargo test --release -p mundap-api --test api -- silent_connections --test-threads 1 --nocapture
