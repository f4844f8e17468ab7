//! The page: well-formed, complete, escaped, self-contained; parts without data left out.

#[path = "../examples/demo/data.rs"]
mod data;

use proptest::prelude::*;
use rrr_report::report::{Report, render_html};
use rrr_report::svg;

const SECTIONS: [&str; 9] = [
    "headline",
    "training",
    "branches",
    "confusion",
    "classes",
    "calibration",
    "mistakes",
    "cost",
    "provenance",
];
const VOID: [&str; 4] = ["meta", "link", "img", "br"];

/// Panics unless every tag of `markup` is closed in order and attributes are quoted.
#[track_caller]
fn assert_balanced(markup: &str) {
    let mut open: Vec<String> = Vec::new();
    let mut rest = markup;
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>'), "stray '>' in {:?}", &rest[..start]);
        rest = &rest[start + 1..];
        let mut quoted = false;
        let end = rest
            .find(|c| {
                quoted ^= c == '"';
                assert!(quoted || c != '<', "'<' inside a tag: {:.80}", rest);
                !quoted && c == '>'
            })
            .expect("a tag is cut off");
        let tag = &rest[..end];
        rest = &rest[end + 1..];
        let name: String =
            tag.trim_start_matches('/').chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
        if tag.starts_with('!') || tag.ends_with('/') || VOID.contains(&name.as_str()) {
            continue;
        }
        if tag.starts_with('/') {
            assert_eq!(open.pop().as_deref(), Some(name.as_str()), "before {rest:.80}");
        } else {
            assert!(!name.is_empty(), "a bare '<' before {rest:.80}");
            open.push(name.clone());
            if name == "style" {
                // Raw text: its child selectors are no tags.
                rest = &rest[rest.find("</style>").expect("style is closed")..];
            }
        }
    }
    assert!(open.is_empty(), "unclosed: {open:?}");
}

fn has_section(html: &str, id: &str) -> bool {
    html.contains(&format!("<section id=\"{id}\""))
}

#[test]
fn a_full_report_has_every_section() {
    let html = render_html(&data::report(20, 8));
    assert_balanced(&html);
    for id in SECTIONS.into_iter().chain(["config"]) {
        assert!(has_section(&html, id), "{id}");
    }
    assert_eq!(html.matches("<svg ").count(), 7);
    assert_eq!(html.matches("<svg ").count(), html.matches("<desc>").count());
    assert!(html.contains("src=\"data:image/png;base64,iVBORw0KGgo"));
    assert!(html.contains("a temperature of 0.800, fitted on the validation images"));
    for text in ["ResNet-152", "resnet152.a1h_in1k", "apache-2.0", "avx512", "blocks = [1, 1, 1, 1]"] {
        assert!(html.contains(text), "{text}");
    }
}

#[test]
fn links_stay_inside_the_page() {
    let html = render_html(&data::report(20, 8)).replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for outside in ["http://", "https://", "url(", "@import", "<script", "src=\"/", "href=\"/"] {
        assert!(!html.contains(outside), "{outside}");
    }
    for (at, _) in html.match_indices("href=\"#") {
        let id = html[at + 7..].split('"').next().unwrap();
        assert!(has_section(&html, id), "{id}");
    }
}

#[test]
fn parts_without_data_are_left_out() {
    let mut report = data::report(3, 1);
    report.curves = None;
    report.mistakes.clear();
    report.cost = None;
    report.speed = None;
    report.config = None;
    report.dataset.train_images = None;
    report.provenance.backbone = None;
    report.provenance.train_seconds = None;
    report.metrics.temperature_scaling = None;
    let html = render_html(&report);
    assert_balanced(&html);
    for id in ["training", "branches", "mistakes", "cost", "config"] {
        assert!(!has_section(&html, id), "{id}");
        assert!(!html.contains(&format!("href=\"#{id}\"")), "{id}");
    }
    assert!(!html.contains("temperature"));
    for id in ["headline", "confusion", "classes", "calibration", "provenance"] {
        assert!(has_section(&html, id), "{id}");
    }
}

#[test]
fn empty_curves_make_no_section() {
    let mut report = data::report(3, 2);
    for point in &mut report.curves.as_mut().unwrap().points {
        *point =
            rrr_report::report::CurvePoint { at: point.at, train_loss: Some(f64::NAN), ..Default::default() };
    }
    assert!(!has_section(&render_html(&report), "training"));
    report.curves.as_mut().unwrap().points.truncate(1);
    report.curves.as_mut().unwrap().points[0].eval_loss = Some(1.0);
    let html = render_html(&report);
    assert!(has_section(&html, "training") && !html.contains("NaN"));
}

/// Puts `text` wherever a report takes text from outside.
fn fill(report: &mut Report, text: &str) {
    let Report { title, method, dataset, metrics, curves, mistakes, cost, config, provenance, .. } = report;
    let mut places = vec![title, method, &mut dataset.name, &mut dataset.split];
    places.extend(metrics.per_class.iter_mut().map(|class| &mut class.name));
    places.extend(curves.iter_mut().map(|curves| &mut curves.axis));
    places.extend(mistakes.iter_mut().flat_map(|m| [&mut m.name, &mut m.label, &mut m.predicted]));
    if let Some(cost) = cost {
        places.push(&mut cost.full_name);
        places.extend(cost.parts.iter_mut().map(|part| &mut part.name));
    }
    places.extend(config);
    places.extend(&mut provenance.command);
    places.extend(&mut provenance.finished);
    if let Some(backbone) = &mut provenance.backbone {
        places.push(&mut backbone.name);
        places.extend(backbone.licence.iter_mut().chain(&mut backbone.sha256).chain(&mut backbone.source));
    }
    places.extend(provenance.versions.iter_mut().flat_map(|fact| [&mut fact.name, &mut fact.value]));
    places.extend([&mut provenance.machine.isa, &mut provenance.machine.platform]);
    places.extend(&mut provenance.machine.cpu);
    for place in places {
        text.clone_into(place);
    }
}

#[test]
fn hostile_text_is_escaped_everywhere() {
    let hostile = "<b onload=\"x()\" a='y'>&amp;</b><script>{{ 7 * 6 }}</script></style>";
    let mut report = data::report(3, 2);
    fill(&mut report, hostile);
    let html = render_html(&report);
    assert_balanced(&html);
    for raw in ["<b ", "<script", "onload=\"", "a='y'", "</style></", "{{ 42"] {
        assert!(!html.contains(raw), "{raw}");
    }
    assert!(html.contains("&lt;b onload=&quot;x()&quot;"));
    assert_eq!(html.matches("</style>").count(), 1);
}

#[test]
fn many_classes_stay_readable_and_small() {
    let html = render_html(&data::report(100, 2));
    assert_balanced(&html);
    assert!(html.len() < 2_000_000, "{} bytes", html.len());
}

#[test]
fn one_class_and_equal_reports() {
    let report = data::report(1, 1);
    assert_balanced(&render_html(&report));
    assert_eq!(render_html(&report), render_html(&report));
}

#[test]
fn a_report_survives_json() {
    let report = data::report(4, 2);
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
}

#[test]
fn charts_stand_alone() {
    let caption = svg::Caption { title: "a < b", description: "\"quoted\"" };
    let points = vec![(1.0, 0.5), (2.0, f64::NAN), (3.0, 0.25)];
    let series = [svg::Series { name: "a & b", points, stroke: svg::Stroke::Dashed }];
    let line =
        svg::LineChart { caption, x_label: "epoch", series: &series, unit: svg::Unit::Number, y_range: None };
    let bars = [svg::Bar { label: "<x>", value: 0.5, interval: Some((0.4, 0.6)), strong: true }];
    let bar =
        svg::BarChart { caption, bars: &bars, unit: svg::Unit::Percent, max: None, reference: Some(0.5) };
    let no_bins = svg::Histogram { caption, x_label: "x", bins: &[], unit: svg::Unit::Number, mark: None };
    let no_names = svg::HeatMap { caption, names: &[], counts: &[], row_label: "r", column_label: "c" };
    let charts = [
        svg::line_chart(&line),
        svg::line_chart(&svg::LineChart { series: &[], ..line }),
        svg::bar_chart(&bar),
        svg::bar_chart(&svg::BarChart { bars: &[], ..bar }),
        svg::histogram(&no_bins),
        svg::heat_map(&no_names),
        svg::reliability_diagram(&[], caption),
    ];
    for chart in charts {
        let file = svg::standalone(&chart);
        assert_balanced(&file);
        assert!(file.starts_with("<svg xmlns=") && file.contains("--accent"));
        assert!(!file.contains("NaN") && !file.contains("inf"), "{file}");
        assert!(file.contains("aria-label=\"a &lt; b\""));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_text_keeps_the_page_balanced(text in "\\PC{0,12}|[<>&\"'{}%#/ a]{0,12}") {
        let mut report = data::report(2, 2);
        fill(&mut report, &text);
        assert_balanced(&render_html(&report));
    }
}
