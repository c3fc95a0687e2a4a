use super::*;

const RECIPE: &str = "name: small\ndata: {root: scans}\nstage1a: {}\n";

/// What comes of a recipe and these variables.
fn resolve(recipe: &str, variables: &[(&str, &str)]) -> (Settings, Vec<String>) {
    let source = recipe::Source {
        name: "r.yaml".into(),
        text: format!("{RECIPE}{recipe}"),
    };
    let recipe = recipe::parse(&source, &[]).unwrap();
    Settings::resolve(&recipe, &|name| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

/// Where the signals go: traces, metrics, logs.
fn places(settings: &Settings) -> [Option<String>; 3] {
    let otlp = settings.export.as_ref().unwrap();
    [&otlp.traces, &otlp.metrics, &otlp.logs].map(|to| to.as_ref().map(|to| to.uri.to_string()))
}

#[test]
fn nothing_is_sent_that_nobody_asked_for() {
    for variables in [
        &[][..],
        &[
            ("OTEL_SERVICE_NAME", "x"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", " "),
        ],
        // Others' business.
        &[
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_METRICS_EXPORTER", "prometheus"),
            ("OTEL_RESOURCE_ATTRIBUTES", "odd"),
        ],
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1"),
            ("OTEL_SDK_DISABLED", "TRUE"),
        ],
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1"),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_LOGS_EXPORTER", "none"),
        ],
    ] {
        let (settings, complaints) = resolve("", variables);
        assert!(settings.export.is_none(), "{variables:?}");
        assert_eq!(complaints, Vec::<String>::new());
    }
    let (settings, _) = resolve(
        "telemetry: {otlp: {endpoint: http://a:1}, metrics_port: 9464}",
        &[("OTEL_SDK_DISABLED", "true")],
    );
    assert!(settings.export.is_none() && settings.metrics_port.is_none());
}

#[test]
fn the_environment_names_places_as_opentelemetry_does() {
    let (settings, complaints) = resolve(
        "",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318/base/"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://b:1/whole"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Api-Key=a%20b,x=y"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
            ("OTEL_SERVICE_NAME", "spine"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=no,team=a%2Cb"),
        ],
    );
    assert_eq!(complaints, Vec::<String>::new());
    let expected = [
        "http://a:4318/base/v1/traces",
        "http://a:4318/base/v1/metrics",
        "http://b:1/whole",
    ];
    assert_eq!(
        places(&settings),
        expected.map(|place| Some(place.to_owned()))
    );
    let traces = settings.export.as_ref().unwrap().traces.as_ref().unwrap();
    assert_eq!(traces.protocol, Protocol::Http);
    assert_eq!(traces.timeout, Duration::from_millis(1500));
    assert_eq!(traces.headers["api-key"], "a b");
    assert_eq!(traces.headers["x"], "y");
    for (key, value) in [("service.name", "spine"), ("team", "a,b")] {
        let attribute = (key.to_owned(), value.to_owned());
        assert!(settings.resource.contains(&attribute), "{attribute:?}");
    }
}

#[test]
fn the_recipe_wins_and_speaks_grpc() {
    let (settings, _) = resolve(
        "telemetry: {otlp: {endpoint: http://a:4317}, sample_steps: 9}",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:1"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ],
    );
    let [Some(traces), Some(_), Some(_)] = places(&settings) else {
        panic!("{settings:?}");
    };
    assert_eq!(
        traces,
        "http://a:4317/opentelemetry.proto.collector.trace.v1.TraceService/Export"
    );
    assert_eq!(settings.sample_steps, 9);
}

#[test]
fn where_no_protocol_is_named_the_port_says_it() {
    let path = |recipe: &str, variables: &[(&str, &str)]| {
        let (settings, complaints) = resolve(recipe, variables);
        assert_eq!(complaints, Vec::<String>::new());
        let [Some(traces), _, _] = places(&settings) else {
            panic!("{settings:?}");
        };
        traces
    };
    let all = "OTEL_EXPORTER_OTLP_ENDPOINT";
    assert_eq!(
        path("", &[(all, "http://a:4318")]),
        "http://a:4318/v1/traces"
    );
    let recipe = "telemetry: {otlp: {endpoint: http://a:4318}}";
    assert_eq!(path(recipe, &[]), "http://a:4318/v1/traces");
    let recipe = "telemetry: {otlp: {endpoint: http://a:4318, protocol: grpc}}";
    assert!(path(recipe, &[]).ends_with("TraceService/Export"));
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    assert!(path("", &[(all, "http://a:4318"), grpc]).ends_with("/Export"));
}

#[test]
fn a_signal_that_has_another_exporter_is_not_sent() {
    for (exporter, is_sent) in [
        ("prometheus", false),
        ("console", false),
        ("none", false),
        ("console, otlp", true),
    ] {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1"),
            ("OTEL_METRICS_EXPORTER", exporter),
        ];
        let (settings, complaints) = resolve("", &variables);
        let [Some(_), metrics, Some(_)] = places(&settings) else {
            panic!("{settings:?}");
        };
        assert_eq!(metrics.is_some(), is_sent, "{exporter}");
        let is_told = complaints.iter().any(|it| it.contains(exporter));
        assert_eq!(is_told, !is_sent && exporter != "none", "{complaints:?}");
    }
}

#[test]
fn a_signal_may_be_asked_for_alone() {
    let (settings, _) = resolve("", &[("OTEL_TRACES_EXPORTER", "otlp")]);
    let [traces, None, None] = places(&settings) else {
        panic!("{settings:?}");
    };
    assert!(traces.unwrap().starts_with("http://localhost:4317/"));
}

#[test]
fn a_sampler_says_how_many_updates_are_traced() {
    let sampled = |variables: &[(&str, &str)]| {
        let endpoint = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1")];
        let (settings, complaints) = resolve("", &[&endpoint[..], variables].concat());
        assert_eq!(complaints, Vec::<String>::new());
        let otlp = settings.export.unwrap();
        (
            settings.sample_steps,
            otlp.traces.is_some() && otlp.logs.is_some(),
        )
    };
    assert_eq!(sampled(&[]), (50, true));
    assert_eq!(
        sampled(&[("OTEL_TRACES_SAMPLER", "parentbased_always_on")]),
        (1, true)
    );
    assert!(!sampled(&[("OTEL_TRACES_SAMPLER", "always_off")]).1);
    let ratio = ("OTEL_TRACES_SAMPLER", "traceidratio");
    assert_eq!(
        sampled(&[ratio, ("OTEL_TRACES_SAMPLER_ARG", "0.001")]),
        (1000, true)
    );
    assert!(!sampled(&[ratio, ("OTEL_TRACES_SAMPLER_ARG", "0")]).1);
}

#[test]
fn what_cannot_be_used_is_told_without_its_keys_and_left_out() {
    let (settings, complaints) = resolve(
        "",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1"),
            (
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
                "user:hunter2@collector:4318",
            ),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "Authorization: Basic dXNlcjpzZWNyZXQ=,hunter2,,x=y",
            ),
            ("OTEL_RESOURCE_ATTRIBUTES", "team=a,odd"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ],
    );
    let [Some(_), None, Some(_)] = places(&settings) else {
        panic!("{settings:?}");
    };
    let told = complaints.join("\n");
    for part in [
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT `collector:4318`",
        "OTEL_EXPORTER_OTLP_PROTOCOL `http/json`",
        "OTEL_EXPORTER_OTLP_HEADERS: entry 1 is left out: it is no header",
        "OTEL_EXPORTER_OTLP_HEADERS: entry 2 is left out: expected key=value",
        "OTEL_RESOURCE_ATTRIBUTES: entry 2 is left out",
        "OTEL_EXPORTER_OTLP_TIMEOUT `soon`",
        "OTEL_TRACES_SAMPLER `sometimes`",
        "OTEL_BSP_MAX_QUEUE_SIZE `0`",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
    for key in ["dXNl", "Basic", "hunter2"] {
        assert!(!told.contains(key), "{told}");
    }
    assert_eq!(complaints.len(), 8, "each once: {told}");
    let export = settings.export.unwrap();
    assert_eq!(export.queue, 2048);
    assert_eq!(export.logs.unwrap().headers["x"], "y");
}
