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
    let otlp = settings.otlp.as_ref().unwrap();
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
        assert!(settings.otlp.is_none(), "{variables:?}");
        assert_eq!(complaints, Vec::<String>::new());
    }
    let (settings, _) = resolve(
        "telemetry: {otlp: {endpoint: http://a:1}, metrics_port: 9464}",
        &[("OTEL_SDK_DISABLED", "true")],
    );
    assert!(settings.otlp.is_none() && settings.metrics_port.is_none());
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
    let traces = settings.otlp.as_ref().unwrap().traces.as_ref().unwrap();
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
        let otlp = settings.otlp.unwrap();
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
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "unix:/a"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=secret"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ],
    );
    let [None, Some(_), Some(_)] = places(&settings) else {
        panic!("{settings:?}");
    };
    let told = complaints.join("\n");
    for part in [
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT `unix:/a`",
        "OTEL_EXPORTER_OTLP_PROTOCOL `http/json`",
        "OTEL_EXPORTER_OTLP_HEADERS is left out: `a b` is no header",
        "OTEL_EXPORTER_OTLP_TIMEOUT `soon`",
        "OTEL_TRACES_SAMPLER `sometimes`",
        "OTEL_BSP_MAX_QUEUE_SIZE `0`",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
    assert!(!told.contains("secret"), "{told}");
    assert_eq!(complaints.len(), 6, "each once: {told}");
    assert_eq!(settings.otlp.unwrap().queue, 2048);
}
