//! The report of `spinectl data check` as one page that needs nothing but itself.

use std::fs;
use std::path::Path;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data::check::{CheckReport, Gray, Problem, Severity, StudyCheck};

use super::{counts, shape, spacing, state};
use crate::page::{self, escaped};

/// The longer side of a picture on the page, CSS pixels.
const SIDE: f64 = 320.0;

const STYLE: &str = "\
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222; background: #fff }
h2 { font-size: 1rem; margin: 0 0 .3rem; overflow-wrap: anywhere }
article { border: 1px solid #ccc; border-left-width: 6px; border-radius: 4px; margin: 1rem 0; padding: .8rem 1rem }
article.error { border-left-color: #c0392b } article.warning { border-left-color: #d68910 }
figure { display: inline-block; margin: .6rem 1rem 0 0; vertical-align: top } figcaption { color: #666; font-size: .85rem }
img { background: #000 } ul { margin: .3rem 0; padding-left: 1.2rem } li { overflow-wrap: anywhere } .facts { color: #666 }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd } article { border-color: #444 } }";

/// Writes the page to `path`.
pub fn write(path: &Path, root: &Path, report: &CheckReport) -> anyhow::Result<()> {
    let page = page(root, report)?;
    fs::write(path, page)
        .map_err(|error| anyhow::anyhow!("cannot write {}: {error}", path.display()))
}

fn page(root: &Path, report: &CheckReport) -> anyhow::Result<String> {
    let title = format!("Data check of {}", root.display());
    let mut bad: Vec<&StudyCheck> = report
        .studies
        .iter()
        .filter(|check| check.severity() > Severity::Ok)
        .collect();
    bad.sort_by_key(|check| std::cmp::Reverse(check.severity()));
    let articles = bad
        .into_iter()
        .map(article)
        .collect::<anyhow::Result<String>>()?;
    let general = list(&report.problems);
    let body = format!("<p>{}</p>\n{general}{articles}", escaped(&counts(report)));
    Ok(page::page(&title, STYLE, &body))
}

fn article(check: &StudyCheck) -> anyhow::Result<String> {
    let class = match check.severity() {
        Severity::Error => "error",
        Severity::Warning | Severity::Ok => "warning",
    };
    let facts: Vec<String> = [
        Some(state(check.severity()).to_lowercase()),
        shape(check).map(|shape| format!("{shape} voxels")),
        spacing(check).map(|spacing| format!("{spacing} mm")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let pictures = match &check.pictures {
        Some(pictures) => {
            figure(&pictures.sagittal, "mid-sagittal, head up")?
                + &figure(&pictures.axial, "axial, middle slice")?
        }
        None => "<p class=\"facts\">No slice of it can be shown.</p>".to_owned(),
    };
    Ok(format!(
        "<article class=\"{class}\">\n<h2>{}</h2>\n<p class=\"facts\">{}</p>\n{}{pictures}\n</article>\n",
        escaped(check.study.as_str()),
        escaped(&facts.join(" · ")),
        list(&check.problems),
    ))
}

fn list(problems: &[Problem]) -> String {
    if problems.is_empty() {
        return String::new();
    }
    let items: String = problems
        .iter()
        .map(|problem| format!("<li>{}</li>\n", escaped(&problem.message)))
        .collect();
    format!("<ul>\n{items}</ul>\n")
}

fn figure(gray: &Gray, caption: &str) -> anyhow::Result<String> {
    let (row, col) = gray.aspect;
    let (height, width) = (
        gray.height as f64 * f64::from(row.max(1)),
        gray.width as f64 * f64::from(col.max(1)),
    );
    let scale = SIDE / height.max(width).max(1.0);
    Ok(format!(
        "<figure><img alt=\"{caption}\" width=\"{:.0}\" height=\"{:.0}\" src=\"data:image/png;base64,{}\">\
         <figcaption>{caption}</figcaption></figure>",
        width * scale,
        height * scale,
        STANDARD.encode(png_of(gray)?)
    ))
}

fn png_of(gray: &Gray) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let size = |n: usize| u32::try_from(n).context("a picture is too large for PNG");
    let mut encoder = png::Encoder::new(&mut bytes, size(gray.width)?, size(gray.height)?);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(&gray.pixels))
        .context("cannot encode a picture")?;
    Ok(bytes)
}
