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

# Follow docs/adding-an-entity.md in a copy: apply its blocks, compile, and test on SQLite
guide:
    bash .ci/guide

# Run what docs/grpc.md shows: the lines of grpcurl, the clients in Python (3.10 or newer) and in Rust
check-grpc:
    bash .ci/grpc

# promtool: in Debian's package prometheus

# Check the alert rules, the dashboard, and the metrics that they name
check-monitoring:
    bash .ci/monitoring

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

# Back up, restore and copy a board of so many questions between all databases, and print what it took
archive-proof n="100000":
    MUNDAP_TEST_ARCHIVE={{ n }} cargo test --release -p mundap-api --test api -- a_large_board_is_carried --test-threads 1 --nocapture

# Check the example files in docker/ with the programs that they are for (Debian: installs what is missing)
check-examples:
    bash .ci/examples

# Debian: apt-get install mariadb-server galera-4 rsync haproxy

# A three-node Galera cluster on this machine: start, status, kill N, freeze N, cut N, …, stop
galera *args="status":
    .ci/galera {{ args }}

# Run all tests on the first node of a Galera cluster, and those of two nodes of the board on two of its nodes
test-galera *args:
    .ci/test-galera {{ args }}

# Kill, freeze and cut off nodes of Galera while clients write through two nodes of the board
galera-faults *args:
    cargo build --release
    .ci/cluster galera-faults {{ args }}

# Replace each of two nodes behind HAProxy under load: no request may fail
rolling-restart rounds="3":
    cargo build --release
    .ci/cluster rolling-restart {{ rounds }}

# REST, uploads, streams and clients' addresses through nginx and HAProxy with TLS
proxies:
    cargo build --release
    .ci/cluster proxies

# What it must survive: `just trial quick`, `just trial kill --database mariadb`

# One experiment of docs/reliability.md; `just trial help` lists them
trial *args:
    cargo build --release --workspace
    target/release/mundap-trial {{ args }}

# The board beside a server written by hand, in ratios: `just bench --database mariadb --questions 1000000`
bench *args:
    cargo build --release --workspace
    target/release/mundap-bench {{ args }}

# What is hot inside an answer by itself: a page as JSON, a token, a cursor, the rules of a question
bench-inside *args:
    cargo bench --package mundap-bench --bench inside -- {{ args }}

# perf: Debian's package linux-perf; inferno: cargo install inferno --locked

# A flame graph of the board under load, target/flamegraph.svg: `just profile --only list`
profile *args:
    bash .ci/profile {{ args }}
