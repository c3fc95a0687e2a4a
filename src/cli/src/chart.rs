//! Line charts as inline SVG. Colours are classes of the page's style, so that a chart follows light and dark.

use std::fmt::Write as _;

use crate::page::escaped;

/// Room around the plot for ticks and names, in the units of the picture.
const LEFT: f64 = 44.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 36.0;

/// What charts need of the page's style: seven colours that are told apart with any colour vision (after M. Okabe, K. Ito,
/// "Color Universal Design", 2002), so dark or so light that text of them stands out from the paper; violet is there for
/// their sky blue, which is blue once it is dark enough.
pub const STYLE: &str = "\
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --faint: #667; --rule: #ccd; --c1: #0072b2; --c2: #b34a00; --c3: #007a57; --c4: #a3457d; --c5: #8a6d00; --c6: #6b4fbb; --c7: #444 }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #181818; --faint: #99a; --rule: #445; --c1: #5ab4ee; --c2: #ff9a52; --c3: #3fc79d; --c4: #e596c2; --c5: #e6c84a; --c6: #b9a5ff; --c7: #ddd } }
svg { display: block; max-width: 100%; height: auto; font: 11px system-ui, sans-serif } svg text { fill: var(--ink) } svg .tick { fill: var(--faint) }
svg path, svg line { fill: none; stroke: var(--ink); stroke-width: 1.6 } svg .grid { stroke: var(--rule); stroke-width: .7 } svg .ideal { stroke: var(--faint); stroke-width: 1; stroke-dasharray: 4 3 }
svg .truth { stroke-dasharray: 5 3; stroke-width: 1.4 } svg .c1 { stroke: var(--c1) } svg .c2 { stroke: var(--c2) } svg .c3 { stroke: var(--c3) } svg .c4 { stroke: var(--c4) }
svg .c5 { stroke: var(--c5) } svg .c6 { stroke: var(--c6) } svg .c7 { stroke: var(--c7) } svg text.name { stroke: none; font-weight: 600 }
svg text.c1 { fill: var(--c1) } svg text.c2 { fill: var(--c2) } svg text.c3 { fill: var(--c3) } svg text.c4 { fill: var(--c4) } svg text.c5 { fill: var(--c5) } svg text.c6 { fill: var(--c6) } svg text.c7 { fill: var(--c7) }
svg circle { fill: var(--c1); stroke: none }";

/// One line of a chart.
pub struct Line {
    /// Classes of the style.
    pub class: String,
    pub points: Vec<(f64, f64)>,
    /// Stands at its highest point.
    pub name: Option<String>,
    /// Whether its points are marked.
    pub marked: bool,
}

/// A chart with linear axes.
pub struct Chart {
    /// What a screen reader says first, and the whole of what there is to see.
    pub title: String,
    pub description: String,
    pub size: (f64, f64),
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
}

pub struct Axis {
    pub name: &'static str,
    pub from: f64,
    pub to: f64,
    pub ticks: Vec<f64>,
}

impl Axis {
    /// 0 to 1.
    pub fn share(name: &'static str) -> Self {
        Axis {
            name,
            from: 0.0,
            to: 1.0,
            ticks: vec![0.0, 0.25, 0.5, 0.75, 1.0],
        }
    }

    /// Where a value lies, 0..1.
    fn place(&self, value: f64) -> f64 {
        let length = self.to - self.from;
        if length > 0.0 {
            (value - self.from) / length
        } else {
            0.5
        }
    }
}

impl Chart {
    /// The chart as an `<svg>` whose ids begin with `id`.
    pub fn svg(&self, id: &str) -> String {
        let (width, height) = self.size;
        let x = |value: f64| LEFT + self.x.place(value) * (width - LEFT - RIGHT);
        let y = |value: f64| height - BOTTOM - self.y.place(value) * (height - TOP - BOTTOM);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" \
             aria-labelledby=\"{id}-t {id}-d\">\n<title id=\"{id}-t\">{}</title>\n<desc id=\"{id}-d\">{}</desc>\n",
            escaped(&self.title),
            escaped(&self.description)
        );
        for tick in &self.y.ticks {
            let at = y(*tick);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT:.1}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>",
                width - RIGHT,
                LEFT - 5.0,
                at + 4.0
            );
        }
        for tick in &self.x.ticks {
            let _ = writeln!(
                svg,
                "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick}</text>",
                x(*tick),
                height - BOTTOM + 14.0
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(11 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            (LEFT + width - RIGHT) / 2.0,
            height - 6.0,
            escaped(self.x.name),
            (TOP + height - BOTTOM) / 2.0,
            escaped(self.y.name)
        );
        for line in &self.lines {
            let mut path = String::new();
            for (i, point) in line.points.iter().enumerate() {
                let step = if i == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{step}{:.1} {:.1}", x(point.0), y(point.1));
            }
            let _ = writeln!(
                svg,
                "<path class=\"{}\" d=\"{path}\"/>",
                escaped(&line.class)
            );
            if line.marked {
                for point in &line.points {
                    let (cx, cy) = (x(point.0), y(point.1));
                    let _ = write!(svg, "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3\"/>");
                }
            }
            let highest = line.points.iter().max_by(|a, b| a.1.total_cmp(&b.1));
            if let (Some(name), Some(highest)) = (&line.name, highest) {
                let _ = writeln!(
                    svg,
                    "<text class=\"name {}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                    escaped(&line.class),
                    x(highest.0),
                    (y(highest.1) - 3.0).max(TOP),
                    escaped(name)
                );
            }
        }
        svg.push_str("</svg>\n");
        svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::unbalanced;

    #[test]
    fn points_lie_where_the_axes_say() {
        let chart = Chart {
            title: "a <b>".into(),
            description: "c & d".into(),
            size: (156.0, 146.0),
            x: Axis::share("x"),
            y: Axis::share("y"),
            lines: vec![Line {
                class: "c1".into(),
                points: vec![(0.0, 0.0), (1.0, 1.0)],
                name: Some("C1".into()),
                marked: true,
            }],
        };
        let svg = chart.svg("k");
        // The plot is 100 x 100, from (44, 110) to (144, 10).
        assert!(svg.contains("d=\"M44.0 110.0L144.0 10.0\""), "{svg}");
        assert!(
            svg.contains("<title id=\"k-t\">a &lt;b&gt;</title>"),
            "{svg}"
        );
        assert!(svg.contains("c &amp; d") && svg.matches("<circle").count() == 2);
        assert_eq!(unbalanced(&svg), None);
    }

    #[test]
    fn an_axis_of_one_value_has_its_middle() {
        let axis = Axis {
            name: "slice",
            from: 3.0,
            to: 3.0,
            ticks: vec![3.0],
        };
        assert_eq!(axis.place(3.0), 0.5);
    }
}
