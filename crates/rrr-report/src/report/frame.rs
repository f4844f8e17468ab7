//! What all pages have in common.

use crate::svg;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, context};

const FRAME: &str = include_str!("frame.html");
const STYLE: &str = include_str!("page.css");

/// Renders a page without scripts or other files from `template`, which extends `frame.html`: it fills the blocks
/// `style`, `nav`, `headline` and `sections` from `page`, whose `title`, `subtitle` and `tiles` the frame shows.
///
/// # Panics
/// If the template is wrong or asks for what `page` lacks.
pub fn render_page(template: &str, page: Value) -> String {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("frame.html", FRAME).expect("the frame is constant and valid");
    let style = Value::from_safe_string(format!("{}{STYLE}", svg::STYLE));
    environment
        .render_named_str("page.html", template, context! { style, ..page })
        .expect("a built-in template renders every report")
}
