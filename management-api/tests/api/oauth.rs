use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::json;

use crate::gateway::{ACCOUNT, Answer, Choices, Gateway};
use management_api::{Rate, Settings};

const PATH: &str = "/management-api/oauth/token";
const FORM: &str = "application/x-www-form-urlencoded";

async fn ask(
    gateway: &Gateway,
    credentials: Option<(&str, Option<&str>)>,
    query: &str,
    content: Option<(&str, &str)>,
) -> Answer {
    let mut request = gateway.http.post(gateway.url(&format!("{PATH}{query}")));
    if let Some((id, secret)) = credentials {
        request = request.basic_auth(id, secret);
    }
    if let Some((media, body)) = content {
        request = request.header(CONTENT_TYPE, media).body(body.to_owned());
    }
    Answer::of(request.send().await.unwrap()).await
}

#[tokio::test]
async fn all_three_forms_of_a_request_give_a_token() {
    let gateway = Gateway::start().await;
    let client = gateway.client.clone();
    let credentials = Some((client.client_id.as_str(), Some(client.client_secret.as_str())));
    let query = "?grant_type=client_credentials";
    let body = r#"{"grant_type":"client_credentials"}"#;
    for (query, content) in [
        ("", Some(("application/json", body))),
        ("", Some(("application/json;charset=UTF-8", body))),
        ("", Some((FORM, "grant_type=client_credentials"))),
        (query, Some((FORM, ""))),
        (query, Some(("application/json", ""))),
        (query, None),
    ] {
        let answer = ask(&gateway, credentials, query, content).await;
        let body = answer.expect(200);
        assert_eq!(body["status_code"], 200);
        assert_eq!(body["token_type"], "bearer");
        assert_eq!(body["scope"], "all");
        assert_eq!(body["userId"], client.client_id);
        let expires_in = body["expires_in"].as_u64().unwrap();
        assert!((3_590..=3_600).contains(&expires_in), "{expires_in}");
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
    assert!(client.client_id.starts_with(&format!("{ACCOUNT}_")));
}

#[tokio::test]
async fn the_same_token_comes_again() {
    let gateway = Gateway::start().await;
    assert_eq!(gateway.login().await, gateway.login().await);
}

#[tokio::test]
async fn errors_are_the_documented_ones() {
    let gateway = Gateway::start().await;
    let client = gateway.client.clone();
    let (id, secret) = (client.client_id.as_str(), Some(client.client_secret.as_str()));
    let good = Some(("application/json", r#"{"grant_type":"client_credentials"}"#));
    let cases = [
        (
            ask(&gateway, Some((id, None)), "", good).await,
            "AuthValidationError",
            "Auth header validation error: Missing attributes 'password'",
        ),
        (
            ask(&gateway, Some(("", secret)), "", good).await,
            "AuthValidationError",
            "Auth header validation error: Missing attributes 'username'",
        ),
        (
            ask(&gateway, Some((id, secret)), "", Some(("application/json", "{}"))).await,
            "BodyValidationError",
            "Request body validation error: Missing attributes 'grant_type'",
        ),
        (
            ask(&gateway, Some((id, secret)), "", Some((FORM, ""))).await,
            "BodyValidationError",
            "Request body validation error: Missing attributes 'grant_type'",
        ),
        (
            ask(&gateway, Some(("nobody", secret)), "", good).await,
            "BadCredentials",
            "User does not exist.",
        ),
        (
            ask(&gateway, Some((id, Some("guess"))), "", good).await,
            "BadCredentials",
            "Incorrect username or password",
        ),
        (
            ask(&gateway, Some((id, secret)), "", Some(("text/xml", "<a/>"))).await,
            "UnsupportedContentTypeError",
            "Content-Type not supported",
        ),
    ];
    for (answer, code, message) in cases {
        let expected = json!({"statusCode": 400, "errorCode": code, "message": message});
        assert_eq!(answer.expect(400), expected);
    }
    let answer = ask(&gateway, None, "", good).await.expect(400);
    assert_eq!(answer["errorCode"], "AuthValidationError");
    let broken = ask(&gateway, Some((id, secret)), "", Some(("application/json", "{"))).await;
    assert_eq!(broken.expect(400)["errorCode"], "BodyValidationError");
}

#[tokio::test]
async fn a_revoked_client_is_out_at_once() {
    let gateway = Gateway::start().await;
    gateway.get("/v1/devices/stats").await.expect(200);
    gateway.clients.revoke(&gateway.client.client_id).unwrap();
    let refusal = gateway.get("/v1/devices/stats").await.refusal(401);
    assert_eq!(refusal["message"], "the client of the token was revoked");
    let client = gateway.client.clone();
    let credentials = Some((client.client_id.as_str(), Some(client.client_secret.as_str())));
    let answer = ask(&gateway, credentials, "?grant_type=client_credentials", None).await;
    assert_eq!(answer.expect(400)["message"], "User does not exist.");
}

#[tokio::test]
async fn a_token_that_is_not_ours_is_refused_with_the_scheme() {
    let gateway = Gateway::start().await;
    for value in ["Bearer x", "Bearer a.b.c", "Basic abc", "Bearer "] {
        let request = gateway.http.get(gateway.url("/management-api/v1/devices/stats"));
        let response = request.header(AUTHORIZATION, value).send().await.unwrap();
        let answer = Answer::of(response).await;
        answer.refusal(401);
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
}

#[tokio::test]
async fn failed_logins_are_slowed_down_by_address() {
    // Fifteen: the gateway's own login, one failure at the price of ten, and four more requests.
    let token_rate = Rate { per_second: 0.01, burst: 15.0 };
    let settings = Settings { token_rate, ..Settings::default() };
    let gateway = Gateway::start_with(Choices { settings, ..Choices::default() }).await;
    let wrong = Some(("nobody", Some("guess")));
    ask(&gateway, wrong, "?grant_type=client_credentials", None).await.expect(400);
    for _ in 0..4 {
        gateway.login().await;
    }
    let answer = ask(&gateway, wrong, "?grant_type=client_credentials", None).await;
    assert_eq!(answer.expect(429)["errorCode"], "TooManyRequests");
    let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=100).contains(&wait), "{wait}");
}
