//! Which token, as RFC 7512 says it, read strictly: every attribute is known, stands where it belongs and does so once.
//!
//! No message repeats a value: a PIN that somebody wrote there all the same would be one.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::text::{percent_decoded, which_of};

/// What a URI begins with.
pub const SCHEME: &str = "pkcs11:";

/// What an attribute says.
enum Is {
    /// Which token, by a field of its information.
    Field(Field),
    /// What the labels of its objects begin with.
    Object,
    /// The library.
    Module,
    /// The file with the PIN.
    Pin,
    /// RFC 7512 has it, and this program does not, for that reason.
    Not(&'static str),
}

/// A field of a token's information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Label,
    Serial,
    Manufacturer,
    Model,
}

use Field::{Label, Manufacturer, Model, Serial};
use Is::{Module, Not, Object, Pin};

const SLOTS_MOVE: &str = "slots move: name the token by `token` or `serial`";
const BY_LABEL: &str = "keys are found by their labels: see `object`";
const BY_PATH: &str = "`module-path` names the library";

/// Every attribute of RFC 7512 (section 2.3), whether it stands behind the `?`, and what it is.
const ATTRIBUTES: &[(&str, bool, Is)] = &[
    ("token", false, Is::Field(Label)),
    ("serial", false, Is::Field(Serial)),
    ("manufacturer", false, Is::Field(Manufacturer)),
    ("model", false, Is::Field(Model)),
    ("object", false, Object),
    ("module-path", true, Module),
    ("pin-source", true, Pin),
    ("pin-value", true, Not("a PIN there is for all to read: put it into a file, `pin-source=file:FILE`")),
    ("module-name", true, Not("`module-path` names the library's file")),
    ("slot-id", false, Not(SLOTS_MOVE)),
    ("slot-description", false, Not(SLOTS_MOVE)),
    ("slot-manufacturer", false, Not(SLOTS_MOVE)),
    ("id", false, Not(BY_LABEL)),
    ("type", false, Not(BY_LABEL)),
    ("library-description", false, Not(BY_PATH)),
    ("library-manufacturer", false, Not(BY_PATH)),
    ("library-version", false, Not(BY_PATH)),
];

/// Which token, by which library, and where its PIN is. It holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkcs11Uri {
    fields: Vec<(Field, String)>,
    /// What the labels of its objects begin with.
    object: String,
    /// The library that speaks with it.
    pub module: PathBuf,
    /// The file with the user's PIN, where the token wants one.
    pub pin: Option<PathBuf>,
}

impl Pkcs11Uri {
    /// Reads a URI; relative paths are below the data directory.
    ///
    /// # Errors
    /// `Kind::Usage` for one that is malformed, names no token or no library, or says what is not known.
    pub fn parse(text: &str, data_dir: &Path) -> Result<Self> {
        let Some(rest) = text.strip_prefix(SCHEME) else {
            return Err(wrong("does not begin with `pkcs11:`"));
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (mut fields, mut object, mut module, mut pin) = (Vec::new(), None, None, None);
        let mut seen = Vec::new();
        let path = path.split(';').map(|one| (one, false));
        for (one, in_query) in path.chain(query.split('&').map(|one| (one, true))) {
            if one.is_empty() && in_query && query.is_empty() {
                continue;
            }
            let (name, is, value) = attribute(one, in_query)?;
            if seen.contains(&name) {
                return Err(wrong(format!("says `{name}` twice")));
            }
            seen.push(name);
            match is {
                Is::Field(field) => fields.push((*field, value)),
                Object => object = Some(value),
                Module => module = Some(data_dir.join(value)),
                Pin => pin = Some(data_dir.join(file_of(&value)?)),
                // Refused where it is read.
                Not(_) => {}
            }
        }
        if !fields.iter().any(|(field, _)| matches!(field, Label | Serial)) {
            return Err(wrong("names no token").hint("`token=LABEL` or `serial=NUMBER` does"));
        }
        let Some(module) = module else {
            let hint = "`?module-path=FILE` does, for example /usr/lib/softhsm/libsofthsm2.so";
            return Err(wrong("names no library").hint(hint));
        };
        Ok(Self { fields, object: object.unwrap_or_else(|| "machine-id".to_owned()), module, pin })
    }

    /// Whether it means a token with this label, serial number, manufacturer and model.
    pub fn is_of(&self, label: &str, serial: &str, manufacturer: &str, model: &str) -> bool {
        self.fields.iter().all(|(field, value)| {
            let found = match field {
                Label => label,
                Serial => serial,
                Manufacturer => manufacturer,
                Model => model,
            };
            found == value
        })
    }

    /// The label of that key's objects.
    pub fn label(&self, name: &str) -> String {
        format!("{}-{name}", self.object)
    }
}

/// `the token ca`, as messages name it.
impl fmt::Display for Pkcs11Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |wanted| self.fields.iter().find(|(field, _)| *field == wanted).map(|(_, value)| value);
        match (said(Label), said(Serial)) {
            (Some(label), _) => write!(f, "the token {label}"),
            (None, serial) => write!(f, "the token with the serial number {}", serial.map_or("", |s| s)),
        }
    }
}

/// One attribute: its name, what it is, and its value.
fn attribute(text: &str, in_query: bool) -> Result<(&'static str, &'static Is, String)> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| wrong("has a part that is not ATTRIBUTE=VALUE"))?;
    let Some((name, is_queried, is)) = ATTRIBUTES.iter().find(|(known, ..)| *known == name) else {
        let ours = ATTRIBUTES.iter().filter(|(.., is)| !matches!(is, Not(_)));
        let hint = which_of(name, &ours.map(|(name, ..)| *name).collect::<Vec<_>>());
        return Err(wrong("has an unknown attribute").hint(hint));
    };
    if let Not(reason) = is {
        return Err(wrong(format!("says `{name}`")).hint(*reason));
    }
    if *is_queried != in_query {
        let place = if *is_queried { "behind a `?`" } else { "before the `?`" };
        return Err(wrong(format!("says `{name}` where it does not belong")).hint(format!(
            "it stands {place}: pkcs11:token=LABEL;object=PREFIX?module-path=FILE&pin-source=file:FILE"
        )));
    }
    let others = if in_query { "/?|" } else { "&" };
    let may_stand =
        |c: char| c.is_ascii_alphanumeric() || "-._~:[]@!$'()*+,=%".contains(c) || others.contains(c);
    if !value.chars().all(may_stand) {
        let hint = "write it as `%` and two hexadecimal digits: a space is `%20`, a slash `%2F`";
        return Err(wrong(format!("has a character in `{name}` that cannot stand there")).hint(hint));
    }
    let value = percent_decoded(value).map_err(|why| wrong(why).hint("`%` itself is written `%25`"))?;
    if value.is_empty() {
        return Err(wrong(format!("has no value for `{name}`")));
    }
    Ok((name, is, value))
}

/// The path of a `file:` URI (RFC 8089), which may be relative.
fn file_of(uri: &str) -> Result<&str> {
    let path = uri.strip_prefix("file:").map(|rest| match rest.strip_prefix("//") {
        // No host, and a path that is absolute.
        Some(absolute) if absolute.starts_with('/') => absolute,
        Some(_) => "",
        None => rest,
    });
    path.filter(|path| !path.is_empty()).ok_or_else(|| {
        wrong("has a `pin-source` that is not `file:FILE`")
            .hint("programs and other sources are not asked for PINs")
    })
}

fn wrong(why: impl fmt::Display) -> Error {
    Error::usage(format!("the token's URI {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Pkcs11Uri> {
        Pkcs11Uri::parse(text, Path::new("/data"))
    }

    #[test]
    fn a_token_is_named_by_what_does_not_move() {
        let uri =
            parse("pkcs11:token=My%20CA;serial=1%2F2?module-path=/lib/p.so&pin-source=file:pin").unwrap();
        assert_eq!(
            (uri.module.as_path(), uri.pin.as_deref()),
            (Path::new("/lib/p.so"), Some(Path::new("/data/pin")))
        );
        assert_eq!(
            (uri.label("tls").as_str(), uri.to_string().as_str()),
            ("machine-id-tls", "the token My CA")
        );
        assert!(uri.is_of("My CA", "1/2", "anybody", "any"));
        assert!(!uri.is_of("My CA", "1", "anybody", "any") && !uri.is_of("My", "1/2", "anybody", "any"));
        let uri = parse("pkcs11:object=prod;serial=7;model=M;manufacturer=A&B?module-path=p.so").unwrap();
        assert_eq!((uri.label("tls").as_str(), uri.pin.as_deref()), ("prod-tls", None));
        assert_eq!(uri.to_string(), "the token with the serial number 7");
        assert!(
            uri.is_of("", "7", "A&B", "M")
                && !uri.is_of("", "7", "A", "M")
                && !uri.is_of("", "7", "A&B", "N")
        );
        for (source, file) in
            [("file:/etc/pin", "/etc/pin"), ("file:///etc/pin", "/etc/pin"), ("file:%2Fp", "/p")]
        {
            let uri = parse(&format!("pkcs11:token=ca?module-path=p.so&pin-source={source}")).unwrap();
            assert_eq!(uri.pin.as_deref(), Some(Path::new(file)), "{source}");
        }
    }

    #[test]
    fn whatever_is_not_known_is_refused() {
        for (text, why) in [
            ("softhsm", "does not begin with"),
            ("pkcs11:", "has a part that is not"),
            ("pkcs11:token=ca", "names no library"),
            ("pkcs11:token=ca?", "names no library"),
            ("pkcs11:model=x?module-path=p", "names no token"),
            ("pkcs11:?module-path=p", "has a part that is not"),
            ("pkcs11:token=ca;?module-path=p", "has a part that is not"),
            ("pkcs11:token=ca?module-path=p&", "has a part that is not"),
            ("pkcs11:token=ca;token=cb?module-path=p", "says `token` twice"),
            ("pkcs11:token=ca?module-path=p&module-path=q", "says `module-path` twice"),
            ("pkcs11:token=?module-path=p", "has no value for `token`"),
            ("pkcs11:token=my ca?module-path=p", "has a character in `token` that cannot stand there"),
            ("pkcs11:token=a/b?module-path=p", "has a character in `token` that cannot stand there"),
            ("pkcs11:token=\u{e9}?module-path=p", "has a character in `token` that cannot stand there"),
            ("pkcs11:token=%C3?module-path=p", "is not UTF-8 where"),
            ("pkcs11:token=%4?module-path=p", "has a `%` without two hexadecimal digits"),
            ("pkcs11:tokens=ca?module-path=p", "has an unknown attribute"),
            ("pkcs11:Token=ca?module-path=p", "has an unknown attribute"),
            ("pkcs11:token=ca;x-own=1?module-path=p", "has an unknown attribute"),
            ("pkcs11:token=ca;module-path=p", "says `module-path` where it does not belong"),
            ("pkcs11:token=ca?module-path=p&object=x", "says `object` where it does not belong"),
            ("pkcs11:token=ca;slot-id=0?module-path=p", "says `slot-id`"),
            ("pkcs11:token=ca;id=%01?module-path=p", "says `id`"),
            ("pkcs11:token=ca?module-name=p", "says `module-name`"),
            ("pkcs11:token=ca?module-path=p&pin-source=/pin", "has a `pin-source` that is not"),
            ("pkcs11:token=ca?module-path=p&pin-source=file:", "has a `pin-source` that is not"),
            ("pkcs11:token=ca?module-path=p&pin-source=file://host/pin", "has a `pin-source` that is not"),
            ("pkcs11:token=ca?module-path=p&pin-source=|cat%20pin", "has a `pin-source` that is not"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(
                error.to_string().starts_with("the token's URI ") && error.to_string().contains(why),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn a_pin_is_refused_and_never_repeated() {
        for text in [
            "pkcs11:token=ca?module-path=p&pin-value=73519",
            "pkcs11:token=ca;pin-value=73519?module-path=p",
            "pkcs11:token=ca?module-path=p&pin-value=&73519",
            "pkcs11:token=ca?module-path=p&pin-source=73519",
            "pkcs11:token=ca?module-path=p&73519=1",
            "pkcs11:token=ca?module-path=p&73519",
        ] {
            let error = format!("{:?}", parse(text).unwrap_err());
            assert!(!error.contains("73519"), "{error}");
        }
    }

    #[test]
    fn attributes_are_those_of_the_rfc_each_once() {
        let mut names: Vec<_> = ATTRIBUTES.iter().map(|(name, ..)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 17);
    }
}
