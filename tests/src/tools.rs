//! Tools of others that tests start: installed below `target/tools` by a script of this repository.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

/// One installation at a time in this process; the scripts themselves do nothing when the tool is there.
static INSTALLING: Mutex<()> = Mutex::new(());

/// The folder of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace").to_owned()
}

/// Runs `scripts/<script>` and gives the tool's path.
///
/// # Panics
/// When the tool cannot be installed, with what the script said.
pub fn install(script: &str, tool: &str) -> PathBuf {
    let _one = INSTALLING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let root = workspace();
    let path = root.join("target/tools").join(tool);
    let output = Command::new(root.join("scripts").join(script)).output();
    let output = output.unwrap_or_else(|error| panic!("scripts/{script} does not start: {error}"));
    assert!(
        output.status.success() && path.is_file(),
        "scripts/{script} did not install {}:\n{}",
        path.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    path
}
