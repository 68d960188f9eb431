//! SigV4 as AWS has published it.

use ring::hmac;

use super::*;
use crate::text::hex;

/// SigV4 as AWS describes it, for comparison: headers in order, and the hash of the body.
fn sigv4(method: &str, path: &str, query: &str, headers: &[(&str, &str)], hash: &str, scope: &str) -> String {
    let date = headers.iter().find(|(name, _)| *name == "x-amz-date").unwrap().1;
    let canonical: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let request = format!("{method}\n{path}\n{query}\n{canonical}\n{}\n{hash}", names.join(";"));
    let text =
        format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(digest(&SHA256, request.as_bytes()).as_ref()));
    let mac = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
    let first = format!("AWS4{SECRET}").into_bytes();
    let key = scope.split('/').fold(first, |key, part| mac(&key, part).as_ref().to_vec());
    hex(mac(&key, &text).as_ref())
}

/// `reqsign` signs for the present alone. So the cases of AWS's test suite hold the comparison, and the comparison
/// every request that is made here.
#[test]
fn requests_are_signed_as_aws_describes_it() {
    let empty = hex(digest(&SHA256, b"").as_ref());
    let form = hex(digest(&SHA256, b"Param1=value1").as_ref());
    let plain: &[(&str, &str)] = &[("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")];
    let typed = [("content-type", "application/x-www-form-urlencoded"), plain[0], plain[1]];
    let scope = "20150830/us-east-1/service/aws4_request";
    for (case, method, query, headers, hash, signature) in [
        (
            "get-vanilla",
            "GET",
            "",
            plain,
            &empty,
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "get-vanilla-query-order-key-case",
            "GET",
            "Param1=value1&Param2=value2",
            plain,
            &empty,
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "post-vanilla",
            "POST",
            "",
            plain,
            &empty,
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        (
            "post-x-www-form-urlencoded",
            "POST",
            "",
            &typed,
            &form,
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
    ] {
        assert_eq!(sigv4(method, "/", query, headers, hash, scope), signature, "{case}");
    }

    let kms = StandIn::good(Algorithm::EcdsaP256);
    kms.key().sign(b"message").unwrap();
    for action in ["GetPublicKey", "Sign"] {
        let asked = &kms.asked(action)[0];
        assert_eq!(asked.header("content-type"), "application/x-amz-json-1.1");
        let date = asked.header("x-amz-date");
        let scope = format!("{}/us-east-1/kms/aws4_request", &date[..8]);
        let hash = hex(digest(&SHA256, asked.body.as_bytes()).as_ref());
        assert_eq!(asked.header("x-amz-content-sha256"), hash);
        let signed = [
            "content-type",
            "host",
            "x-amz-content-sha256",
            "x-amz-date",
            "x-amz-security-token",
            "x-amz-target",
        ];
        let headers = signed.map(|name| (name, asked.header(name)));
        let signature = sigv4("POST", "/", "", &headers, &hash, &scope);
        let names = signed.join(";");
        let expected = format!(
            "AWS4-HMAC-SHA256 Credential={KEY_ID}/{scope}, SignedHeaders={names}, Signature={signature}"
        );
        assert_eq!(asked.header("authorization"), expected, "{action}");
    }
}
