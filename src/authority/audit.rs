//! The audit trail for people and for programs: one line an event.

use humantime::parse_duration;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::store::{Cursor, Event, EventFilter, Trail};
use crate::clock::parse_rfc3339;
use crate::error::{Error, Result};
use crate::text::{self, shown, shown_ascii, shown_long};

/// How many events are in memory at a time.
const PAGE: usize = 500;

/// What a line of text shows of an event after its time, kind and id, in this
/// order, and under which name.
const FIELDS: &[(&str, &str)] = &[
    ("bot", "bot"),
    ("token", "token"),
    ("join_method", "method"),
    ("by", "by"),
    ("ca", "ca"),
    ("phase", "phase"),
    ("kind", "kind"),
    ("value", "value"),
    ("secret_id", "secret"),
    ("secrets", "secrets"),
    ("replaces", "replaces"),
    ("replaced_by", "by"),
    ("reason", "reason"),
    ("message", "message"),
    ("issuances_revoked", "issuances_revoked"),
    ("certificates_revoked", "certificates_revoked"),
    ("issuance_ids", "issuances"),
    ("provenance", "run"),
    ("origin", "origin"),
    ("serials", "serials"),
    ("type", "types"),
    ("options", "options"),
    ("principals", "principals"),
    ("groups", "groups"),
    ("expires_at", "expires"),
    ("peer", "peer"),
    ("keys", "keys"),
    ("events", "events"),
    ("until", "until"),
    ("detail", "detail"),
];

/// Prints every event that the filter lets through, oldest first, each as
/// `line` puts it ([`text()`] or [`json`]), without holding them all. `print`
/// says whether anybody still reads (`| head` does not), which ends it.
pub async fn write(
    store: &dyn Trail,
    filter: &EventFilter,
    line: fn(&Event) -> String,
    print: impl FnMut(&str) -> Result<bool>,
) -> Result<()> {
    write_those(store, filter, |_| true, line, print).await
}

/// The same of events that have this serial, in decimal: a certificate's, or what is the `jti` of a token.
pub async fn write_of_serial(
    store: &dyn Trail,
    filter: &EventFilter,
    serial: &str,
    line: fn(&Event) -> String,
    print: impl FnMut(&str) -> Result<bool>,
) -> Result<()> {
    let has_it = |event: &Event| {
        let serials = event.body.get("serials").and_then(Value::as_array);
        serials.is_some_and(|serials| serials.iter().any(|one| one == serial))
    };
    write_those(store, filter, has_it, line, print).await
}

async fn write_those(
    store: &dyn Trail,
    filter: &EventFilter,
    is_meant: impl Fn(&Event) -> bool,
    line: fn(&Event) -> String,
    mut print: impl FnMut(&str) -> Result<bool>,
) -> Result<()> {
    let mut after = Cursor::default();
    loop {
        let page = store.events(filter.clone(), after, PAGE).await?;
        let mut lines = String::new();
        for event in &page {
            after = event.cursor;
            if is_meant(event) {
                lines.push_str(&line(event));
                lines.push('\n');
            }
        }
        if !print(&lines)? || page.len() < PAGE {
            return Ok(());
        }
    }
}

/// Prints what [`write()`] does of the filter, and where no event has its id, those of jobs that another cluster knows by it:
/// by its issuance's, or by the `jti` of the proof.
pub async fn find(
    store: &dyn Trail,
    filter: &EventFilter,
    line: fn(&Event) -> String,
    mut print: impl FnMut(&str) -> Result<bool>,
) -> Result<()> {
    let mut found = false;
    let noted = |text: &str| {
        found |= !text.is_empty();
        print(text)
    };
    write(store, filter, line, noted).await?;
    let Some(id) = filter.id.as_deref().filter(|_| !found) else { return Ok(()) };
    let all = EventFilter { id: None, ..filter.clone() };
    let is_of = |event: &Event| {
        let origin = event.body.get("origin").and_then(Value::as_object);
        origin.is_some_and(|origin| {
            ["issuance_id", "jti"].iter().any(|name| origin.get(*name).and_then(Value::as_str) == Some(id))
        })
    };
    write_those(store, &all, is_of, line, print).await
}

/// An event as one line of words: `TIME EVENT ID name=value …`. Values with
/// spaces are quoted; nothing in them acts on a terminal.
pub fn text(event: &Event) -> String {
    let body = &event.body;
    const IDS: [&str; 9] = [
        "issuance_id",
        "denial_id",
        "lock_id",
        "instance",
        "secret_id",
        "join_token",
        "rotation_id",
        "store",
        "id",
    ];
    let id = IDS.iter().find_map(|name| body.get(*name));
    let mut line = [body.get("time"), body.get("event"), id]
        .into_iter()
        .flatten()
        .map(|value| quoted(shown_ascii(&plain(value))))
        .collect::<Vec<_>>()
        .join(" ");
    for (field, name) in FIELDS {
        let value = match *field {
            "type" | "principals" | "groups" => of_outputs(body, field),
            "options" => options(body),
            "origin" => origin(body),
            "keys" => keys(body),
            "detail" => body.get("detail").map(|detail| shown_long(&plain(detail).replace('\n', "; "))),
            // Cut where it was put together, so that no part of it takes another away.
            "provenance" => body.get("provenance").map(|run| shown_long(&plain(run))),
            field => body.get(field).map(listed),
        };
        if let Some(value) = value {
            line.push_str(&format!(" {name}={}", quoted(value)));
        }
    }
    line
}

/// An event as one line of JSON.
pub fn json(event: &Event) -> String {
    text::json(&Value::from(event.body.clone()).to_string())
}

/// The time that `--since` means, in seconds since 1970: a duration back from
/// `now` (`1h`, `7d`), an RFC 3339 time, in UTC or not, or the start of a day in UTC (`2026-11-22`).
///
/// # Errors
/// `Kind::Usage` where it is none of these.
pub fn since(text: &str, now: i64) -> Result<i64> {
    if let Ok(back) = parse_duration(text) {
        return Ok(now.saturating_sub(i64::try_from(back.as_secs()).unwrap_or(i64::MAX)));
    }
    let day = || parse_rfc3339(&format!("{text}T00:00:00Z"));
    parse_rfc3339(text).or_else(|| with_offset(text)).or_else(day).ok_or_else(|| {
        Error::usage(format!("`{}` is not a time for --since", shown(text)))
            .hint("give how long ago (`1h`, `7d`), a time (`2026-11-22T12:00:00Z`, `2026-11-22T13:00:00+01:00`) or a day (`2026-11-22`)")
    })
}

/// An RFC 3339 time that is so far from UTC.
fn with_offset(text: &str) -> Option<i64> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp)
}

/// A value without JSON's quotes; a list with commas.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// What the outputs have in a field, a text or a list of them, each once; none where no output has it.
fn of_outputs(body: &Map<String, Value>, field: &str) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    for value in body.get("outputs")?.as_array()?.iter().filter_map(|output| output.get(field)) {
        for name in value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice) {
            names.extend(name.as_str().filter(|name| !names.contains(name)));
        }
    }
    let names: Vec<String> = names.into_iter().map(shown_ascii).collect();
    (!names.is_empty()).then(|| names.join(","))
}

/// The options of each output that has some, `NAME=VALUE+…`, each such set once.
fn options(body: &Map<String, Value>) -> Option<String> {
    let mut all: Vec<String> = Vec::new();
    let outputs = body.get("outputs")?.as_array()?;
    for options in outputs.iter().filter_map(|output| output.get("options")?.as_object()) {
        let pairs = options.iter().map(|(name, value)| shown_ascii(&format!("{name}={}", plain(value))));
        let pairs = pairs.collect::<Vec<_>>().join("+");
        if !all.contains(&pairs) {
            all.push(pairs);
        }
    }
    (!all.is_empty()).then(|| all.join(","))
}

/// Where a job comes from that another cluster vouches for: that one's name, and what its own trail finds the job by.
fn origin(body: &Map<String, Value>) -> Option<String> {
    let origin = body.get("origin")?.as_object()?;
    let part = |name| shown_ascii(&origin.get(name).map(plain).unwrap_or_default());
    Some(format!("{} {} jti {}", part("cluster"), part("issuance_id"), part("jti")))
}

/// Each CA of a kind that was rotated, `ID=STATE`.
fn keys(body: &Map<String, Value>) -> Option<String> {
    let text = |key: &Value, name: &str| key.get(name).map(plain).unwrap_or_default();
    let key = |key: &Value| shown_ascii(&format!("{}={}", text(key, "id"), text(key, "state")));
    Some(body.get("keys")?.as_array()?.iter().map(key).collect::<Vec<_>>().join(","))
}

/// A value as it is shown; a list is never cut, or a job that asks for many
/// names would hide the one that it is after.
fn listed(value: &Value) -> String {
    match value {
        Value::Array(values) => {
            values.iter().map(|value| shown_ascii(&plain(value))).collect::<Vec<_>>().join(",")
        }
        value => shown_ascii(&plain(value)),
    }
}

/// A value as it stands in a line. A quoted one ends at the next quote, whatever is in it.
fn quoted(text: String) -> String {
    if !text.is_empty() && !text.contains([' ', '"', '\\', '=']) && !text.contains(char::is_whitespace) {
        return text;
    }
    format!("\"{}\"", text.replace('"', "\\u{22}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::Kind;

    fn event(body: Value) -> Event {
        Event { cursor: Cursor::default(), body: body.as_object().unwrap().clone() }
    }

    #[test]
    fn an_issuance_reads_as_one_line() {
        let line = text(&event(json!({
            "time": "2026-11-22T12:00:00Z", "event": "issued", "issuance_id": "i1", "bot": "deployer",
            "token": "github-deploy", "join_method": "github", "serials": ["7", "8"],
            "provenance": "github:octo-org/app@refs/heads/main run 123 attempt 1",
            "outputs": [
                {"type": "identity", "principals": ["deploy", "ubuntu"]},
                {"type": "identity", "principals": ["deploy"]},
                {"type": "kubernetes", "principals": ["ci:deployer"], "groups": ["viewers", "system:masters"]},
            ],
            "expires_at": "2026-11-22T13:00:00Z", "peer": "192.0.2.7", "claims": {"sub": "x"},
        })));
        assert_eq!(
            line,
            "2026-11-22T12:00:00Z issued i1 bot=deployer token=github-deploy method=github \
             run=\"github:octo-org/app@refs/heads/main run 123 attempt 1\" serials=7,8 \
             types=identity,kubernetes principals=deploy,ubuntu,ci:deployer groups=viewers,system:masters \
             expires=2026-11-22T13:00:00Z peer=192.0.2.7"
        );
    }

    #[test]
    fn the_options_of_each_output_stay_together() {
        let orders = json!({"service": "orders", "database": "main"});
        let line = text(&event(json!({"event": "issued", "outputs": [
            {"type": "identity", "principals": ["deploy"]},
            {"type": "database", "options": orders, "principals": ["reader"]},
            {"type": "database", "options": {"service": "orders", "database": "other"}},
            {"type": "database", "options": orders},
            {"type": "kubernetes", "options": {"cluster": "c\u{1b}"}},
        ]})));
        assert_eq!(
            line,
            "issued types=identity,database,kubernetes options=\"database=main+service=orders,\
             database=other+service=orders,cluster=c\\u{1b}\" principals=deploy,reader"
        );
    }

    #[test]
    fn many_names_hide_none() {
        let names: Vec<String> = (0..50).map(|n| format!("host-{n}.example.com")).collect();
        let groups: Vec<String> = names.iter().cloned().chain(["system:masters".to_owned()]).collect();
        let line = text(&event(json!({
            "event": "issued", "serials": names, "outputs": [{"principals": names, "groups": groups}],
            "detail": "long\n".repeat(60),
        })));
        let all = names.join(",");
        for said in [
            format!("serials={all} "),
            format!("principals={all} "),
            format!("groups={all},system:masters "),
            format!("detail=\"{}\"", "long; ".repeat(60)),
        ] {
            assert!(line.contains(&said), "no {said} in {line}");
        }
    }

    #[test]
    fn nothing_acts_and_nothing_passes_for_another_field() {
        let hostile = "x\n2026 issued \"y\" bot=admin\u{1b}[2J\u{202e}\u{7f}\u{9b}é\u{2028}";
        let event = event(json!({"event": "refused", "denial_id": "d-1", "token": hostile}));
        let line = text(&event);
        assert_eq!(
            line,
            "refused d-1 token=\"x\\u{a}2026 issued \\u{22}y\\u{22} bot=admin\\u{1b}[2J\\u{202e}\\u{7f}\\u{9b}\\u{e9}\\u{2028}\""
        );
        let line = json(&event);
        assert!(line.contains("\\u202e\\u007f\\u009bé\\u2028"), "{line}");
        assert!(line.chars().all(|c| !c.is_control()), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["token"], hostile);
    }

    #[test]
    fn since_takes_durations_times_and_days() {
        let now = 1_795_348_800;
        for (text, wanted) in [
            ("1h", now - 3600),
            ("7d", now - 7 * 86400),
            ("1h 30m", now - 5400),
            ("2026-11-22T11:59:59Z", now - 1),
            ("2026-11-22", now - 12 * 3600),
            ("2026-11-22T13:00:00+01:00", now),
            ("2026-11-22T06:30:00.5-05:30", now),
        ] {
            assert_eq!(since(text, now).unwrap(), wanted, "{text}");
        }
        for text in [
            "",
            "yesterday",
            "-1h",
            "7",
            "2026-13-01",
            "1h\u{1b}",
            "2026-11-22T13:00:00+24:00",
            "2026-11-22+01:00",
            "é+01:00",
        ] {
            let error = since(text, now).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(!error.to_string().contains('\u{1b}'));
        }
    }
}
