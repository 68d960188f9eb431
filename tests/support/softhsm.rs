//! The real SoftHSM, with tokens in a folder of its own. Whoever loads it has [`SoftHsm::conf`] in `SOFTHSM2_CONF`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The variable that names its configuration.
pub(crate) const CONF: &str = "SOFTHSM2_CONF";
/// The user's PIN of every token.
pub(crate) const PIN: &str = "48151623";
const SO_PIN: &str = "42108151";

/// Tokens of SoftHSM.
pub(crate) struct SoftHsm {
    folder: PathBuf,
}

impl SoftHsm {
    /// Those below that folder.
    pub(crate) fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// A new one below that folder, without tokens.
    pub(crate) fn new(folder: &Path) -> Self {
        let hsm = Self::at(folder);
        fs::create_dir_all(hsm.tokens()).unwrap();
        let conf = format!("directories.tokendir = {}\nlog.level = ERROR\n", hsm.tokens().display());
        fs::write(hsm.conf(), conf).unwrap();
        hsm.write_pin(PIN);
        hsm
    }

    /// Its configuration.
    pub(crate) fn conf(&self) -> PathBuf {
        self.folder.join("softhsm2.conf")
    }

    /// The folder of the tokens: each is a folder.
    pub(crate) fn tokens(&self) -> PathBuf {
        self.folder.join("tokens")
    }

    /// The file with the PIN.
    pub(crate) fn pin(&self) -> PathBuf {
        self.folder.join("pin")
    }

    /// Puts another PIN into it.
    pub(crate) fn write_pin(&self, pin: &str) {
        fs::write(self.pin(), format!("{pin}\n")).unwrap();
        fs::set_permissions(self.pin(), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Makes a token of that label.
    pub(crate) fn add(&self, label: &str) {
        let mut init = self.command("softhsm2-util");
        succeed(init.args(["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", SO_PIN]));
    }

    /// What `keys` says of that token.
    pub(crate) fn uri(&self, label: &str) -> String {
        let (module, pin) = (module(), self.pin());
        format!("pkcs11:token={label}?module-path={}&pin-source=file:{}", module.display(), pin.display())
    }

    /// A tool that finds these tokens.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env(CONF, self.conf());
        command
    }

    /// OpenSC's tool, logged in to that token.
    pub(crate) fn tool(&self, label: &str) -> Command {
        let mut tool = self.command("pkcs11-tool");
        tool.arg("--module").arg(module()).args(["--token-label", label, "--login", "--pin", PIN]);
        tool
    }

    /// Takes all tokens away, as when the cable is pulled.
    pub(crate) fn take_away(&self) {
        fs::rename(self.tokens(), self.folder.join("away")).unwrap();
    }

    /// Puts them back.
    pub(crate) fn put_back(&self) {
        fs::rename(self.folder.join("away"), self.tokens()).unwrap();
    }

    /// Has calls of other processes hang while what this gives lives: SoftHSM waits for the locks of its files.
    #[allow(dead_code, reason = "a process does not hold up itself: for the integration tests")]
    pub(crate) fn hang(&self) -> Vec<fs::File> {
        let files = fs::read_dir(self.tokens())
            .unwrap()
            .flat_map(|token| fs::read_dir(token.unwrap().path()).unwrap());
        let open = |path| fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let files: Vec<fs::File> = files.map(|file| open(file.unwrap().path())).collect();
        let lock = |file| rustix::fs::fcntl_lock(file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        files.iter().for_each(lock);
        files
    }

    /// Gives each token that is away another serial number, and so another slot.
    pub(crate) fn move_slots(&self) {
        for token in fs::read_dir(self.folder.join("away")).unwrap() {
            let file = token.unwrap().path().join("token.object");
            let mut bytes = fs::read(&file).unwrap();
            // Sixteen hexadecimal digits; the slot is of the last eight.
            let is_digits =
                |part: &[u8]| part.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
            let at = bytes.windows(16).position(is_digits).unwrap();
            let last = &mut bytes[at + 15];
            *last = if *last == b'0' { b'1' } else { b'0' };
            fs::write(&file, bytes).unwrap();
        }
    }
}

/// Where the library is.
pub(crate) fn module() -> PathBuf {
    let places = [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/local/lib/softhsm/libsofthsm2.so",
        "/opt/homebrew/lib/softhsm/libsofthsm2.so",
    ];
    let found = places.iter().map(PathBuf::from).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("SoftHSM is not installed: none of {places:?}"))
}

/// Runs it to a good end.
pub(crate) fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
