//! What an output was asked for is in the record, and no other request is the same.

use serde_json::{Value, json};

use crate::support::client::{self, Keys};
use crate::support::once::World;

const ROLE: &str = "---\nkind: role\nversion: v7\nmetadata: {name: servers}\nspec:\n  allow: {db_users: [reader], \
                    db_names: [main, other], kubernetes_users: ['ci:deployer'], app_labels: {name: [shop, billing]}}\n";

fn world() -> World {
    World::with_policy(|policy| policy.replace("roles: [deploy]", "roles: [deploy, servers]") + ROLE)
}

fn output(keys: &Keys, kind: &str, options: &Value) -> Value {
    let mut output = keys.output();
    (output["name"], output["type"], output["options"]) = (kind.into(), kind.into(), options.clone());
    output.as_object_mut().unwrap().remove("ssh");
    output
}

#[test]
fn the_record_says_what_each_output_is_for() {
    let world = world();
    let keys = Keys::fresh();
    let asked = [
        ("database", json!({"service": "orders", "database": "main", "user": "reader"})),
        ("kubernetes", json!({"cluster": "prod"})),
        ("application", json!({"app": "shop"})),
    ];
    let mut outputs: Vec<Value> = asked.iter().map(|(kind, options)| output(&keys, kind, options)).collect();
    outputs.push(keys.output());
    let token = world.issuer.token("github", &world.authority.url()).mint();
    world
        .authority
        .client()
        .exchange(&client::request("github-deploy", "github", &token, json!(outputs)))
        .granted();
    let issued = world.authority.audit().into_iter().find(|event| event["event"] == "issued").unwrap();
    // The user is the principal.
    let wanted = [
        ("database", json!({"service": "orders", "database": "main"})),
        ("kubernetes", json!({"cluster": "prod"})),
        ("application", json!({"app": "shop"})),
        ("identity", Value::Null),
        ("identity", Value::Null),
    ];
    let recorded = issued["outputs"].as_array().unwrap().iter();
    let recorded: Vec<(&str, Value)> =
        recorded.map(|one| (one["type"].as_str().unwrap(), one["options"].clone())).collect();
    assert_eq!(recorded, wanted);
    let text = world.authority.run(["audit"]).stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains(" options=\"database=main+service=orders,cluster=prod,app=shop\" "), "{text}");
}

/// A lost answer is given again; the same proof for another database is none.
#[test]
fn other_options_are_another_request() {
    let world = world();
    let keys = Keys::fresh();
    let token = world.issuer.token("github", &world.authority.url()).mint();
    let ask = |options: Value| {
        let outputs = json!([output(&keys, "database", &options)]);
        world.authority.client().exchange(&client::request("github-deploy", "github", &token, outputs))
    };
    let asked = json!({"service": "orders", "database": "main"});
    let granted = ask(asked.clone()).granted();
    for other in
        [json!({"service": "billing", "database": "main"}), json!({"service": "orders", "database": "other"})]
    {
        let problem = ask(other).problem(401);
        let record = world.authority.refusal(problem["denial_id"].as_str().unwrap());
        assert_eq!(record["reason"], "token_used", "{record}");
    }
    assert_eq!(ask(asked).granted()["outputs"][0]["serial"], granted["outputs"][0]["serial"]);
}
