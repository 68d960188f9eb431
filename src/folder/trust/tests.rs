use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

const ME: u32 = 1000;
const OTHER: u32 = 1001;
const INSTEAD: &str = "so that another user could put something else in its place";

/// For comparison.
fn place<T>(found: Result<T, Unfit>) -> Result<T, String> {
    found.map_err(|unfit| unfit.to_string())
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn who_could_put_something_else_there() {
    let standing = |uid, gid, mode| Standing { uid, gid, mode };
    let by_me = Trusted { me: ME, owner: None };
    for (uid, gid, mode, asked, unasked) in [
        (ME, ME, 0o700, true, true),
        (ME, 100, 0o755, true, true),
        (0, 0, 0o755, true, true),
        (0, 0, 0o1777, true, true),
        // A user's own group, and root's.
        (ME, ME, 0o775, true, false),
        (0, 0, 0o775, true, false),
        (ME, 100, 0o775, false, false),
        (0, 100, 0o775, false, false),
        (ME, ME, 0o777, false, false),
        (0, 0, 0o777, false, false),
        (ME, ME, 0o1777, true, false),
        // The owner can always change it.
        (OTHER, OTHER, 0o700, false, false),
        (OTHER, OTHER, 0o1777, false, false),
    ] {
        let place = standing(uid, gid, mode);
        assert_eq!(place.check(by_me).is_ok(), asked, "{place:?}");
        assert_eq!(place.check_unasked(by_me).is_ok(), unasked, "{place:?}");
    }
    let error = standing(OTHER, OTHER, 0o700).check(Trusted { me: 0, owner: None }).unwrap_err();
    assert_eq!(error, "belongs to another user (uid 1001)");
}

#[test]
fn folders_named_and_folders_led_to_count() {
    let temp = tempfile::tempdir().unwrap();
    let here = fs::canonicalize(temp.path()).unwrap();
    let (open, private) = (here.join("open"), here.join("private"));
    for path in [&open, &private, &open.join("below"), &private.join("below")] {
        fs::create_dir(path).unwrap();
    }
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    symlink(private.join("below"), open.join("link")).unwrap();
    symlink(open.join("below"), private.join("link")).unwrap();
    symlink(private.join("below"), private.join("good")).unwrap();
    let found = (private.join("below"), OsString::from("trust"));
    for good in [private.join("below/trust"), private.join("good/trust"), private.join("below/./trust/.")] {
        assert_eq!(place(stands_in(&good)), Ok(found.clone()), "{good:?}");
    }
    for bad in ["open/trust", "open/below/trust", "open/link/trust", "private/link/trust"] {
        let why = place(stands_in(&here.join(bad))).unwrap_err();
        assert_eq!(why, format!("{} can be written to by everybody, {INSTEAD}", open.display()), "{bad}");
    }
    assert!(stands_in(Path::new("/")).is_err() && stands_in(&here.join("none/trust")).is_err());
}

/// What the first link names and what the last one leads to is all ours.
#[test]
fn folders_led_through_count() {
    let temp = tempfile::tempdir().unwrap();
    let here = fs::canonicalize(temp.path()).unwrap();
    let (open, private) = (here.join("open"), here.join("private"));
    fs::create_dir(&open).unwrap();
    fs::create_dir_all(private.join("below")).unwrap();
    symlink("../open/second", private.join("first")).unwrap();
    symlink("../private/below", open.join("second")).unwrap();
    let found = Ok((private.join("below"), OsString::from("trust")));
    assert_eq!(place(stands_in(&private.join("first/trust"))), found);
    assert_eq!(place(stands_in(&private.join("first/../below/trust"))), found);
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let why = place(stands_in(&private.join("first/trust"))).unwrap_err();
    assert_eq!(why, format!("{} can be written to by everybody, {INSTEAD}", open.display()));
    // Nobody can replace it there; whose it is can be tried as root alone.
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(place(stands_in(&private.join("first/trust"))), found);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(open.join("second"), Some(65534), None).unwrap();
        let why = place(stands_in(&private.join("first/trust"))).unwrap_err();
        let link = open.join("second");
        assert_eq!(why, format!("{} is a link of another user (uid 65534), {INSTEAD}", link.display()));
    }
    symlink(private.join("loop"), private.join("loop")).unwrap();
    assert!(place(stands_in(&private.join("loop/trust"))).unwrap_err().ends_with("too many symbolic links"));
    fs::write(private.join("file"), "").unwrap();
    assert!(place(stands_in(&private.join("file/trust"))).unwrap_err().ends_with("is not a directory"));
}

#[test]
fn what_a_link_leads_to_counts() {
    let temp = tempfile::tempdir().unwrap();
    let here = fs::canonicalize(temp.path()).unwrap();
    let (open, private) = (here.join("open"), here.join("private"));
    for (path, mode) in [(&open, 0o777), (&private, 0o700)] {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    symlink(&private, open.join("link")).unwrap();
    symlink(&open, private.join("link")).unwrap();
    assert_eq!(place(fit(&open.join("link"))), Ok(private.clone()));
    assert!(fit(&private.join("link")).is_err());
    fs::create_dir(open.join("below")).unwrap();
    let error = place(fit(&open.join("below"))).unwrap_err();
    assert!(error.starts_with(open.to_str().unwrap()), "{error}");
    fs::write(private.join("file"), "").unwrap();
    for bad in [private.join("file"), private.join("none"), PathBuf::from("relative")] {
        assert!(fit(&bad).is_err(), "{bad:?}");
    }
}

/// A tree for the cases of Arti's `fs-mistrust`.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new(folders: &[(&str, u32)]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        folders.iter().for_each(|(path, _)| fs::create_dir_all(tree.path(path)).unwrap());
        folders.iter().for_each(|(path, mode)| chmod(&tree.path(path), *mode));
        tree
    }

    fn path(&self, path: &str) -> PathBuf {
        fs::canonicalize(self.0.path()).unwrap().join(path)
    }

    fn ours(&self, path: &str) -> Result<PathBuf, String> {
        place(walk(&self.path(path), Trusted::ours()))
    }

    fn operators(&self, path: &str) -> Result<PathBuf, String> {
        place(operators(&self.path(path), Owner::me()))
    }

    fn open(&self, path: &str) -> Result<PathBuf, String> {
        Err(format!("{} can be written to by everybody, {INSTEAD}", self.path(path).display()))
    }
}

/// `simple_cases`, `sticky`
#[test]
fn mistrust_of_folders() {
    let tree = Tree::new(&[("a/b/c", 0o700), ("a/b", 0o755), ("a", 0o755), ("e/f/g", 0o755), ("e/f", 0o777)]);
    symlink("a/b/c", tree.path("d")).unwrap();
    for check in [Tree::ours, Tree::operators] {
        assert_eq!(check(&tree, "a/b/c"), Ok(tree.path("a/b/c")));
        assert_eq!(check(&tree, "e/f/g"), tree.open("e/f"));
        assert_eq!(check(&tree, "d"), Ok(tree.path("a/b/c")));
    }
    chmod(&tree.path("a"), 0o777);
    assert_eq!(tree.ours("a/b/c"), tree.open("a"));
    chmod(&tree.path("a"), 0o1777);
    assert_eq!(tree.ours("a/b/c"), Ok(tree.path("a/b/c")));
    assert_eq!(u64::from(STICKY), u64::from(rustix::fs::Mode::SVTX.as_raw_mode()));
}

/// `trust_gid`: a group that an operator gave it to, and no other.
#[test]
fn mistrust_of_groups() {
    let tree = Tree::new(&[("a/b", 0o2770), ("a", 0o770)]);
    let gid = fs::metadata(tree.path("a")).unwrap().gid();
    assert_eq!(tree.operators("a/b"), Ok(tree.path("a/b")));
    assert_eq!(tree.ours("a/b").is_ok(), gid == 0 || gid == me());
    let shared = Standing { uid: ME, gid: 100, mode: 0o2775 };
    assert!(shared.check(Trusted { me: ME, owner: Some(ME) }).is_ok());
    assert!(shared.check(Trusted { me: ME, owner: None }).is_err());
    assert!(Standing { mode: 0o2777, ..shared }.check(Trusted { me: ME, owner: Some(ME) }).is_err());
}

/// `admin_only`: an operator's file and what it stands in is the authority's owner's, ours or root's.
#[test]
fn mistrust_of_owners() {
    let by_operator = Trusted { me: ME, owner: Some(OTHER) };
    let of = |uid| Standing { uid, gid: uid, mode: 0o755 };
    for (uid, ours, operators) in [(0, true, true), (ME, true, true), (OTHER, false, true), (7, false, false)]
    {
        assert_eq!(of(uid).check(Trusted { owner: None, ..by_operator }).is_ok(), ours, "{uid}");
        assert_eq!(of(uid).check(by_operator).is_ok(), operators, "{uid}");
    }
    if me() == 0 {
        let tree = Tree::new(&[("a/b/c", 0o755), ("a/b", 0o755), ("a", 0o755)]);
        let own = |path: &str, uid| std::os::unix::fs::chown(tree.path(path), Some(uid), None).unwrap();
        own("a/b", 4242);
        let says = format!("{} belongs to another user (uid 4242), {INSTEAD}", tree.path("a/b").display());
        assert_eq!(tree.ours("a/b/c"), Err(says.clone()));
        assert_eq!(tree.operators("a/b/c"), Err(says));
        own("a/b/c", 4242);
        // It does not vouch for itself; the data directory's owner does.
        let says = "it belongs to another user (uid 4242)";
        assert_eq!(tree.operators("a/b/c"), Err(says.to_owned()));
        assert_eq!(place(operators(&tree.path("a/b/c"), Owner(4242))), Ok(tree.path("a/b/c")));
        // Nor does a file, but for one that its owner's group let it be put there.
        own("a/b", 0);
        fs::write(tree.path("a/b/d"), "").unwrap();
        own("a/b/d", 4242);
        for (mode, is_in) in [(0o755, false), (0o1777, false), (0o777, false), (0o2775, true), (0o3775, true)]
        {
            chmod(&tree.path("a/b"), mode);
            assert_eq!(tree.operators("a/b/d").is_ok(), is_in, "{mode:o}");
            assert!(owners(&tree.path("a/b/d"), Owner(0)).is_err(), "{mode:o}");
        }
        owners(&tree.path("a/b/d"), Owner(4242)).unwrap();
    }
}

#[test]
fn an_authority_is_its_data_directorys_owners() {
    let tree = Tree::new(&[("data", 0o700)]);
    assert_eq!(Owner::of(&tree.path("data")).unwrap(), Owner::me());
    assert!(Owner::of(&tree.path("none")).unwrap_err().is_missing());
    if me() == 0 {
        std::os::unix::fs::chown(tree.path("data"), Some(4242), None).unwrap();
        symlink("data", tree.path("link")).unwrap();
        for (mode, owner) in [(0o755, 4242), (0o1777, 0), (0o777, 0)] {
            chmod(&tree.path(""), mode);
            for name in ["data", "link"] {
                assert_eq!(Owner::of(&tree.path(name)).unwrap(), Owner(owner), "{name} {mode:o}");
            }
        }
    }
}

/// `want_type`, `multiple_errors`, `empty_path`, `unix_permissions`
#[test]
fn mistrust_of_what_is_no_folder() {
    let tree = Tree::new(&[("a", 0o700)]);
    fs::write(tree.path("b"), "").unwrap();
    assert_eq!(tree.operators("b"), Ok(tree.path("b")));
    assert!(tree.operators("b/c").unwrap_err().contains("ot a directory"));
    assert_eq!(
        place(stands_in(&tree.path("b/c"))).unwrap_err(),
        format!("{} is not a directory", tree.path("b").display())
    );
    for missing in [tree.path("a/b/c"), PathBuf::new()] {
        assert!(operators(&missing, Owner::me()).unwrap_err().is_missing(), "{missing:?}");
    }
    assert!(stands_in(&tree.path("a/b/c")).unwrap_err().is_missing());
    assert!(place(stands_in(Path::new(""))).is_err());
    let closed = Tree::new(&[("a/b", 0o700), ("a", 0o000)]);
    assert_eq!(closed.ours("a/b").is_ok(), me() == 0);
    chmod(&closed.path("a"), 0o700);
}

/// `repeats`, `looping`, `past_root`
#[test]
fn mistrust_of_links() {
    let tree = Tree::new(&[("a/b/c/d", 0o700)]);
    let end = Ok(tree.path("a/b/c/d"));
    symlink("../../", tree.path("a/b/c/rel_lnk")).unwrap();
    symlink(tree.path("a"), tree.path("a/b/c/abs_lnk")).unwrap();
    for path in [
        "a/b/../b/../b/c/../c/d",
        "a/b/c/rel_lnk/b/c/d",
        "a/b/c/abs_lnk/b/c/d",
        "a/b/c/abs_lnk/b/c/rel_lnk/b/c/rel_lnk/b/c/abs_lnk/b/c/d",
    ] {
        assert_eq!(tree.ours(path), end, "{path}");
    }
    symlink("../../b/c/x", tree.path("a/b/c/x")).unwrap();
    symlink("./f", tree.path("a/b/c/e")).unwrap();
    symlink("./e", tree.path("a/b/c/f")).unwrap();
    for path in ["a/b/c/x", "a/b/c/e/413"] {
        assert!(tree.ours(path).unwrap_err().ends_with("too many symbolic links"), "{path}");
    }
    let root = tree.path("");
    let up = "../".repeat(2 * root.components().count());
    let path = format!("{up}{}/a/b/c/d", root.strip_prefix("/").unwrap().display());
    assert_eq!(tree.ours(&path), end);
    chmod(&tree.path("a"), 0o777);
    assert_eq!(tree.ours("a/b/c/rel_lnk/b/c/d"), tree.open("a"));
}

/// `readable_ok`, `check_contents`: what may be read is told apart by the file itself.
#[test]
fn mistrust_of_files() {
    let of = |uid, mode| Standing { uid, gid: 100, mode };
    let path = Path::new("/x");
    for (standing, operators, secret) in [
        (of(ME, 0o600), true, true),
        (of(ME, 0o640), true, false),
        (of(ME, 0o644), true, false),
        (of(ME, 0o666), false, false),
        (of(0, 0o640), true, false),
        (of(0, 0o660), true, false),
        (of(0, 0o644), true, false),
        (of(0, 0o1777), false, false),
        (of(OTHER, 0o600), me() == OTHER, me() == OTHER),
    ] {
        assert_eq!(standing.check_operators(path, Owner(ME)).is_ok(), operators, "{standing:?}");
        assert_eq!(standing.check_secret(path, Owner(ME), false).is_ok(), secret, "{standing:?}");
    }
    // Debian's `ssl-cert` and a Secret with an `fsGroup`; a systemd credential with its ACL.
    for (standing, me, server, ca) in [
        (of(0, 0o640), ME, true, false),
        (of(0, 0o640), 0, true, false),
        (Standing { gid: 101, ..of(0, 0o640) }, ME, false, false),
        (Standing { gid: 0, ..of(0, 0o440) }, ME, true, true),
        (Standing { gid: 0, ..of(0, 0o440) }, 0, true, false),
        (of(ME, 0o640), ME, false, false),
    ] {
        let found = [true, false].map(|may_share| standing.is_for_group(me, |gid| gid == 100, may_share));
        assert_eq!(found, [server, ca], "{standing:?} {me}");
    }
}

/// What a kubelet mounts, but for the mount: it takes root's link and a mount for reading alone.
#[test]
fn a_folder_that_only_looks_like_a_volume_is_refused() {
    let tree = Tree::new(&[("volume/..2026", 0o755), ("volume", 0o777)]);
    symlink("..2026", tree.path("volume/..data")).unwrap();
    fs::write(tree.path("volume/..2026/p.yaml"), "").unwrap();
    symlink("..data/p.yaml", tree.path("volume/p.yaml")).unwrap();
    assert_eq!(tree.operators("volume/p.yaml"), tree.open("volume"));
    assert!(tree.operators("volume").is_err());
    chmod(&tree.path("volume"), 0o755);
    assert_eq!(tree.operators("volume/p.yaml"), Ok(tree.path("volume/..2026/p.yaml")));
}
