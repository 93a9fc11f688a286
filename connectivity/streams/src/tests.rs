use proptest::prelude::*;
use vocabulary::{RadioAccess, SessionChange};

use super::*;

/// A record as both vendors send it; addresses of the network are made up.
const CREATED: &str = r#"{"id":1234567890,"timestamp":"2019-01-21T09:36:17Z","alert":false,"user":null,
 "description":"New PDP Context successfully activated with SGSN CP=192.0.2.1, DP=192.0.2.2.",
 "event_type":{"id":3,"description":"Create PDP Context"},
 "event_severity":{"id":0,"description":"INFO"},
 "event_source":{"id":0,"description":"Network"},
 "organisation":{"id":1234,"name":"8100123"},
 "imsi":{"id":1234567,"imsi":"901405100000000","import_date":"2019-01-21T09:36:17Z"},
 "sim":{"id":1234567,"iccid":"8988280666000002864","msisdn":"882285100000000","production_date":"2019-01-21T09:36:17Z"},
 "endpoint":{"id":1234567,"name":"8988280666000002864","ip_address":"10.209.106.1","tags":null,"imei":"8635760478500001"},
 "detail":{"id":2,"name":"T-Mobile","country":{"id":74,"name":"Germany","country_code":"49","mcc":"262","iso_code":"de"},
  "pdp_context":{"pdp_context_id":110753000,"tunnel_created":"2021-08-09T12:00:27","gtp_version":1,"nsapi":5,"rat_type":2,"apn":"iot.1nce.net",
   "imsi":"901405100000000","imeisv":"863576047850000","ue_ip_address":"10.209.106.1","region":"eu-central-1","breakout_ip":"unavailable",
   "mcc":"262","mnc":"01","lac":38701,"ci":5559,"sac":null,"rac":null,"operator_id":"2"}}}"#;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn parsed(body: &str) -> Parsed {
    parse("emnify", body.as_bytes(), now()).unwrap()
}

fn edited(from: &str, to: &str) -> String {
    assert!(CREATED.contains(from), "{from}");
    CREATED.replacen(from, to, 1)
}

#[test]
fn a_created_context_is_a_session() {
    let parsed = parsed(&format!("[{CREATED}]"));
    assert_eq!((parsed.records, parsed.ignored, parsed.incomplete), (1, 0, 0));
    let report = &parsed.reports[0];
    assert_eq!(report.change, SessionChange::Start);
    assert_eq!((report.feed.as_str(), report.session.as_str()), ("emnify", "110753000"));
    assert_eq!(report.happened_at, "2019-01-21T09:36:17Z".parse().unwrap());
    assert_eq!(report.iccid, "8988280666000002864".parse().ok());
    assert_eq!(report.imsi, "901405100000000".parse().ok());
    assert_eq!(report.msisdn, "882285100000000".parse().ok());
    assert_eq!(report.ipv4, Some([10, 209, 106, 1].into()));
    assert_eq!(report.apn.as_deref(), Some("iot.1nce.net"));
    let cell = report.cell.unwrap();
    assert_eq!((cell.access, cell.plmn), (RadioAccess::Gsm, "262-01".parse().unwrap()));
    assert_eq!((cell.area, cell.cell), (Some(38_701), Some(5_559)));
    assert!(report.imei.is_some());
}

#[test]
fn a_deleted_context_ends_it_with_its_volume() {
    let deleted = edited("\"id\":3,\"description\":\"Create PDP Context\"", "\"id\":5")
        .replacen(
            "\"detail\":{",
            "\"detail\":{\"volume\":{\"rx\":0.000100,\"tx\":0.001176,\"total\":0.001276},",
            1,
        )
        .replace("\"apn\":\"iot.1nce.net\"", "\"apn\":null");
    let report = parsed(&deleted).reports.remove(0);
    assert_eq!((report.change, report.apn), (SessionChange::Stop, None));
    let octets = report.octets.unwrap();
    assert_eq!((octets.up, octets.down), (1_176, 100));
}

#[test]
fn an_updated_context_moves_its_cell() {
    let updated = edited("\"id\":3,\"description\":\"Create PDP Context\"", "\"id\":4")
        .replace("\"rat_type\":2", "\"rat_type\":8")
        .replace("\"ci\":5559", "\"ci\":28312321");
    let report = parsed(&updated).reports.remove(0);
    assert_eq!(report.change, SessionChange::Update);
    assert_eq!(report.cell.unwrap().access, RadioAccess::NbIot);
    assert_eq!(report.cell.unwrap().cell, Some(28_312_321));
}

#[test]
fn usage_of_data_is_octets_of_a_sim() {
    let usage = r#"{"id":1234567890,"imsi":"901405100000000","imsi_id":1234567,
        "start_timestamp":"2021-08-09T12:51:20Z","end_timestamp":"2021-08-09T12:59:05Z",
        "traffic_type":{"id":5,"description":"Data"},
        "volume":{"total":0.001176,"tx":0.001176,"rx":0.0},"cost":0.001176,
        "currency":{"id":1,"symbol":"€","code":"EUR"},
        "sim":{"id":123456,"iccid":"8988280666000002864","msisdn":"882285100000000"},
        "operator":{"id":2,"name":"T-Mobile","mnc":"01"},
        "endpoint":{"id":12345678,"ip_address":"10.209.106.1","imei":"8635760478500001"}}"#;
    let report = parsed(usage).reports.remove(0);
    assert_eq!(report.change, SessionChange::Usage);
    assert_eq!(report.counted_from, "2021-08-09T12:51:20Z".parse().ok());
    assert_eq!(report.happened_at, "2021-08-09T12:59:05Z".parse().unwrap());
    assert_eq!(report.octets, Some(vocabulary::Octets { up: 1_176, down: 0 }));
    assert_eq!(report.iccid, "8988280666000002864".parse().ok());
    assert_eq!(report.imsi, "901405100000000".parse().ok());
    assert_eq!((report.ipv4, report.session.as_str()), (None, ""), "it says nothing of addresses");
    let named = r#""detail":{"pdp_context":{"rat_type":6,"ipcan_session_id":"a-1"}},"id""#;
    let named = parsed(&usage.replacen("\"id\"", named, 1)).reports.remove(0);
    assert_eq!(named.session, "a-1");
    let lack = |from: &str, to: &str| {
        assert!(usage.contains(from), "{from}");
        parsed(&usage.replacen(from, to, 1)).first_lack.unwrap()
    };
    assert_eq!(lack("start_timestamp", "begin"), "start_timestamp");
    assert_eq!(lack("2021-08-09T12:59:05Z", "soon"), "end_timestamp");
    assert_eq!(lack("\"tx\":0.001176", "\"tx\":-1"), "volume.tx and volume.rx");
    let nobody = usage.replacen("iccid", "x", 1).replacen("\"imsi\"", "\"x\"", 1);
    assert_eq!(parsed(&nobody).first_lack, Some("sim.iccid and imsi"));
}

/// The second platform of 1NCE names no PDP context, and not one of its sessions was taken.
#[test]
fn a_session_has_the_name_of_its_association_where_it_has_no_number() {
    let id = "8ec7b8d0-bf49-4d56-ad59-3b4e0fa59795";
    let renamed =
        |to: String| parsed(&edited("\"pdp_context_id\":110753000", &to)).reports.remove(0);
    assert_eq!(renamed(format!("\"ipcan_session_id\":\"{id}\"")).session, id);
    let both = format!("\"pdp_context_id\":110753000,\"ipcan_session_id\":\"{id}\"");
    assert_eq!(renamed(both).session, id, "usage names it so");
    let vendor = edited(
        "\"pdp_context\":{\"pdp_context_id\":110753000",
        &format!("\"session_id\":\"{id}\",\"pdp_context\":{{\"pdp_context_id\":null"),
    );
    assert_eq!(parsed(&vendor).reports.remove(0).session, id);
    let usage = format!(
        r#"{{"id":819948096,"imsi":"901405180005433","ipcan_session_id":"{id}","rat_type":2,
        "start_timestamp":"2025-01-01T00:00:00Z","end_timestamp":"2025-01-01T00:05:00Z",
        "traffic_type":{{"id":5}},"volume":{{"tx":0.001,"rx":0.002,"total":0.003}}}}"#
    );
    assert_eq!(parsed(&usage).reports.remove(0).session, id);
}

/// Names beyond 64 bits were rounded, so that two sessions had one name.
#[test]
fn a_number_that_cannot_be_told_from_its_neighbour_is_no_name() {
    let of = |id: &str| parsed(&edited("110753000", id));
    assert_eq!(of("18446744073709551615").reports[0].session, "18446744073709551615");
    assert_eq!(of("-1").reports[0].session, "-1");
    for id in ["18446744073709551616", "1.5", "1e3", "\"\"", "[1]"] {
        assert_eq!(of(id).incomplete, 1, "{id}");
    }
    assert_eq!(of(&format!("\"{}\"", "x".repeat(254))).incomplete, 1);
}

/// An address of IPv4 in the form of IPv6 was no address, and the session began without one.
#[test]
fn an_address_is_known_in_either_form() {
    let of = |address: &str| {
        parsed(&edited(
            "\"ue_ip_address\":\"10.209.106.1\"",
            &format!("\"ue_ip_address\":\"{address}\""),
        ))
    };
    assert_eq!(of("::ffff:10.209.106.1").reports[0].ipv4, Some([10, 209, 106, 1].into()));
    assert_eq!(of("2001:db8:0:7::1").reports[0].ipv6_prefix, "2001:db8:0:7::1".parse().ok());
    for none in ["0.0.0.0", "::", "::ffff:0.0.0.0"] {
        assert_eq!(of(none).first_lack, Some("detail.pdp_context.ue_ip_address"), "{none}");
    }
}

/// Sixteen megabytes of small values became half a gigabyte before anybody counted the records, and
/// a number that no machine holds kept the other records of its body back for ever.
#[test]
fn a_record_that_cannot_be_used_costs_its_bytes_and_leaves_the_rest() {
    let long = format!("{{\"event_type\":[{}0]}}", "0,".repeat(40_000));
    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    for bad in [long.as_str(), deep.as_str(), r#"{"x":1e999}"#] {
        let parsed = parsed(&format!("[{bad},{CREATED}]"));
        assert_eq!((parsed.records, parsed.reports.len(), parsed.incomplete), (2, 1, 1));
    }
    let mut body = format!("[{CREATED},{{\"name\":\"x\"}}]").into_bytes();
    let place = body.len() - 4;
    body[place] = 0xff;
    let parsed = parse("emnify", &body, now()).unwrap();
    assert_eq!((parsed.records, parsed.reports.len(), parsed.ignored), (2, 1, 1));
}

#[test]
fn of_a_field_that_stands_twice_the_last_one_counts() {
    let twice = edited("\"id\":3,", "\"id\":5,\"id\":3,");
    assert_eq!(parsed(&twice).reports[0].change, SessionChange::Start);
}

#[test]
fn other_records_are_left_and_what_lacks_something_is_named() {
    let usage = r#"{"id":1,"imsi":"901405100000000","start_timestamp":"2021-08-09T12:51:20Z",
        "traffic_type":{"id":6,"description":"SMS"},"volume":{"total":1,"tx":1,"rx":0}}"#;
    let located = r#"{"id":2,"event_type":{"id":1},"imsi":{"imsi":"901405100000000"}}"#;
    let unknown = r#"{"id":3,"event_type":{"id":4711}}"#;
    let rejected = r#"{"id":4,"event_type":{"id":3},"event_severity":{"id":1},"detail":null}"#;
    let all = parsed(&format!("[{usage},{located},{unknown},{rejected},7,null,{CREATED}]"));
    assert_eq!((all.records, all.reports.len(), all.ignored), (7, 1, 6));
    let lack = |from: &str, to: &str| {
        let parsed = parsed(&edited(from, to));
        assert_eq!((parsed.reports.len(), parsed.incomplete), (0, 1));
        parsed.first_lack.unwrap()
    };
    assert_eq!(lack("\"pdp_context\"", "\"other\""), "detail.pdp_context");
    assert_eq!(
        lack("\"pdp_context_id\":110753000", "\"pdp_context_id\":null"),
        "detail.pdp_context.pdp_context_id and ipcan_session_id"
    );
    assert_eq!(lack("\"timestamp\":\"2019-01-21T09:36:17Z\"", "\"timestamp\":1"), "timestamp");
}

#[test]
fn what_is_no_body_is_refused() {
    let refused = |body: &str| parse("emnify", body.as_bytes(), now()).unwrap_err().to_string();
    assert!(refused("[{").starts_with("the body is no JSON: EOF"));
    assert_eq!(refused("null"), "the body is null, allowed: an object or an array of objects");
    assert!(refused("7").contains("a single value"));
    let many = format!("[{}0]", "0,".repeat(RECORDS_MAX));
    assert_eq!(refused(&many), "the body has 3001 records, allowed: 3000");
    assert!(refused("[1,2").contains("no JSON") && refused("{} {}").contains("no JSON"));
    assert_eq!(parsed(&format!(" \n[{}0] ", "0,".repeat(RECORDS_MAX - 1))).ignored, RECORDS_MAX);
    assert_eq!(parsed("[]"), Parsed::default());
}

#[test]
fn a_clock_ahead_is_set_to_the_arrival() {
    let ahead = edited("2019-01-21T09:36:17Z", "2031-01-01T00:00:00Z");
    assert_eq!(parsed(&ahead).reports[0].happened_at, now());
}

proptest! {
    /// Whatever a record holds in place of what is expected, it is counted and breaks nothing.
    #[test]
    fn no_value_breaks_a_record(
        place in prop::sample::select(vec![
            "110753000", "\"10.209.106.1\"", "\"901405100000000\"", "38701", "5559", "\"262\"",
            "\"01\"", "2,\"apn\"", "\"8988280666000002864\"", "{\"id\":3",
        ]),
        value in prop::sample::select(vec![
            "null", "-1", "1e300", "\"\"", "[]", "{}", "true", "\"x\"", "99999999999999999999",
        ]),
    ) {
        let value = match place {
            "2,\"apn\"" => format!("{value},\"apn\""),
            "{\"id\":3" => format!("{{\"id\":{value}"),
            _ => value.to_owned(),
        };
        let parsed = parsed(&CREATED.replace(place, &value));
        prop_assert_eq!(parsed.records, parsed.reports.len() + parsed.ignored + parsed.incomplete);
    }

    #[test]
    fn no_bytes_break_it(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse("x", &body, now());
    }
}
