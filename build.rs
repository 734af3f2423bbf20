//! Compiles `proto/latchkey/v1` without `protoc`, and writes the descriptor set that server reflection serves.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use protox::prost::Message as _;

const FILES: [&str; 6] = [
    "latchkey/v1/types.proto",
    "latchkey/v1/access.proto",
    "latchkey/v1/directory.proto",
    "latchkey/v1/connector.proto",
    "latchkey/v1/audit.proto",
    "latchkey/v1/operations.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("latchkey.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
