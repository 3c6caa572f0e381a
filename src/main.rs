//! The `portcullis` program: arguments in, exit code out. Everything else is in the library.

use std::process::ExitCode;

/// The buffers of connections lie between longer-lived allocations: this allocator separates sizes, and its background
/// thread returns unused memory to the system.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    portcullis::cli::main()
}
