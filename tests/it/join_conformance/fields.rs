//! Cases that follow from the fields of a method's rules.

use serde_json::{Map, Value, json};

use super::Suite;
use super::cases::Case;

impl Suite {
    /// For each field of a rule, claims that are nearly what it wants.
    pub fn field_cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for (field, claim) in &self.method.fields {
            let required = self.method.required.contains(claim);
            let repeated = self.method.repeated.contains(claim);
            let mut add = |what: &str, value: Option<Value>, wrong_type: bool| {
                let is_none = repeated || required && wrong_type;
                let (status, reason) =
                    if is_none { (401, "claim_invalid") } else { (403, "no_rule_matches") };
                let (mut at, mut not_at) = (Map::new(), Vec::new());
                match value {
                    Some(value) => drop(at.insert(claim.clone(), value)),
                    None => not_at.push(claim.clone()),
                }
                let name = format!("field {field}: {what}");
                let reason = reason.to_owned();
                cases.push(Case { name, at, not_at, status, reason, ..Case::default() });
            };
            add("missing", None, true);
            add("null", Some(Value::Null), true);
            match self.claim(claim) {
                Value::String(text) => {
                    add("more behind", Some(format!("{text}x").into()), false);
                    add("more in front", Some(format!("x{text}").into()), false);
                    let capitals = text.to_uppercase();
                    if capitals != *text {
                        add("capitals", Some(capitals.into()), false);
                    }
                    if !self.method.or_list.contains(field) {
                        add("a list", Some(json!([text])), true);
                    }
                }
                Value::Array(items) => {
                    let others: Vec<String> =
                        items.iter().map(|item| format!("{}x", item.as_str().unwrap())).collect();
                    add("other items", Some(json!(others)), false);
                    add("empty", Some(json!([])), false);
                    add("its first item alone, as text", Some(items[0].clone()), true);
                }
                Value::Bool(value) => {
                    add("the other", Some((!value).into()), false);
                    add("text", Some(value.to_string().into()), true);
                }
                Value::Number(number) => {
                    let number = number.as_i64().unwrap();
                    add("one more", Some((number + 1).into()), false);
                    add("text", Some(number.to_string().into()), true);
                    add("with a fraction of nothing", format!("{number}.0").parse().ok(), true);
                    add("a list", Some(json!([number])), true);
                    add("true", Some(true.into()), true);
                }
                other @ (Value::Null | Value::Object(_)) => panic!("no cases for {other}"),
            }
        }
        cases
    }
}

/// The join token of a field's own rule.
pub fn field_token(field: &str) -> String {
    format!("field-{}", field.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_', "-"))
}
