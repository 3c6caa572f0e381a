//! The `portcullis` program: arguments in, exit code out. All else is the library's.

use std::process::ExitCode;

/// A connection's buffers lie between things that last longer: this allocator keeps sizes apart, and
/// its own thread gives unused memory back to the system.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    portcullis::cli::main()
}
