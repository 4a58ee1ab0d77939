//! Alert rules and dashboard: read by the tools that own their formats, with metrics that the program has.

use std::collections::BTreeSet;
use std::fs;

use super::RecipeSandbox;
use crate::documents::metrics_of_the_program;
use crate::harness::{docs_under_test, host_tools};

/// Names of metrics in an expression, without the endings of a histogram's series.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !(letter.is_ascii_lowercase() || letter == '_'));
    let names = words.filter(|word| word.starts_with("elect_"));
    names.map(|name| name.trim_end_matches("_bucket").to_owned()).collect()
}

#[test]
fn the_alert_rules_fire_when_they_should_and_not_otherwise() {
    let recipes = docs_under_test::root().join("recipes");
    let rules = recipes.join("alerts.yaml").display().to_string();
    host_tools::attempt(["promtool", "check", "rules", &rules]).expect("tests/run installs promtool");
    let tests = recipes.join("alerts-test.yaml").display().to_string();
    host_tools::attempt(["promtool", "test", "rules", &tests]).expect("the rules");
    let text = docs_under_test::read("recipes/alerts.yaml");
    let unknown: Vec<String> = metrics(&text).difference(&metrics_of_the_program()).cloned().collect();
    assert_eq!(unknown, [""; 0]);
    let tested = docs_under_test::read("recipes/alerts-test.yaml");
    let shown = docs_under_test::read("docs/observing.md");
    for alert in text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tested.contains(alert) && shown.contains(&format!("| `{alert}` |")), "{alert}");
    }
    // A rule that fires too late is noticed.
    let workspace = RecipeSandbox::new();
    fs::write(workspace.path("alerts.yaml"), text.replace("> 0.2", "> 0.9")).expect("written");
    fs::write(workspace.path("test.yaml"), tested).expect("written");
    let broken = workspace.path("test.yaml").display().to_string();
    host_tools::attempt(["promtool", "test", "rules", &broken]).expect_err("half of the renewals fail there");
}

#[test]
fn the_dashboard_is_one_of_grafanas_and_asks_for_metrics_that_exist() {
    let workspace = RecipeSandbox::new();
    let python = docs_under_test::tool("python3");
    let check = docs_under_test::root().join("tests/recipes/dashboard.py").display().to_string();
    let dashboard = docs_under_test::root().join("recipes/grafana-dashboard.json").display().to_string();
    let expressions =
        host_tools::attempt([python.as_str(), &check, &dashboard]).expect("Grafana's model keeps all of it");
    assert!(expressions.lines().count() >= 12, "{expressions}");
    let unknown: Vec<String> = metrics(&expressions).difference(&metrics_of_the_program()).cloned().collect();
    assert_eq!(unknown, [""; 0]);
    // Prometheus parses each expression.
    let rule = |(number, expression): (usize, &str)| {
        let expression = expression.replace("$__rate_interval", "5m").replace('\'', "''");
        format!("      - {{record: 'panel:{number}', expr: '{expression}'}}\n")
    };
    let rules: String = expressions.lines().enumerate().map(rule).collect();
    let rules = format!("groups:\n  - name: dashboard\n    rules:\n{rules}");
    fs::write(workspace.path("rules.yaml"), rules).expect("written");
    let rules = workspace.path("rules.yaml").display().to_string();
    host_tools::attempt(["promtool", "check", "rules", &rules]).expect("promtool");
    let text = docs_under_test::read("recipes/grafana-dashboard.json");
    fs::write(workspace.path("broken.json"), text.replace("\"gridPos\"", "\"gridpos\"")).expect("written");
    let broken = workspace.path("broken.json").display().to_string();
    host_tools::attempt([python.as_str(), &check, &broken]).expect_err("there is no such field");
}
