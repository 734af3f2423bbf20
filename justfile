# `just` lists the recipes. Every check also runs from scripts/test, which needs no `just`.

_default:
    @just --list --unsorted

# Show the whole job in one terminal: simulator, connector, a grant that ends by itself
demo *args:
    cargo run --release -- demo {{ args }}

# Everything that continuous integration checks
ci:
    .ci/run

# Is the code formatted?
fmt-check:
    scripts/test format

# Format the code and the protobuf files
fmt:
    cargo fmt
    -buf format --write

# Clippy, warnings are errors
lint:
    scripts/test clippy

# All tests: Rust, then Python against the built binary
test:
    scripts/test rust python

# The documentation builds without a warning
doc:
    scripts/test docs

# Licences, sources and banned crates
deny:
    scripts/test deny

# Known vulnerabilities; fetches the RustSec database, so it is not part of `ci`
advisories:
    cargo deny check advisories

# Lint and format check of the protobuf files
buf:
    scripts/test proto

# Measure what the connector costs on this machine: some eight minutes, quiet machine wanted
bench *args:
    cargo run --release -- bench {{ args }}

# Instructions of a small bench of accepting, all its processes; needs valgrind
callgrind:
    cargo build --profile sim
    valgrind --tool=callgrind --trace-children=yes --callgrind-out-file=target/callgrind.%p.out \
        target/sim/latchkey bench --quick --only accept

# Change every line of the core in turn and see whether a test notices (hours)
mutants *args:
    cargo mutants {{ args }}

# Render deploy/manifests from the chart
manifests:
    scripts/manifests

# What checkov thinks of the chart, the Dockerfile and the Terraform modules; takes minutes to install
checkov:
    scripts/test checkov

# Does the library build with each optional feature alone?
features:
    scripts/test features

# Does the release build give the same bytes twice?
reproduce *digest:
    scripts/reproduce {{ digest }}

# The bill of materials of the release
sbom *args:
    scripts/sbom {{ args }}
