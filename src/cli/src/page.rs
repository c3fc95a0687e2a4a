//! A web page that needs nothing but itself: no script, no network; readable in light and in dark.

/// A page whose `<body>` is `body`. `title` is text, `style` and `body` are markup.
pub fn page(title: &str, style: &str, body: &str) -> String {
    let title = escaped(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>{title}</title>\n<style>\n{style}\n</style>\n</head>\n<body>\n\
         <h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    )
}

/// Text as markup. Names come from files: nothing in them may become markup of its own.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// For tests: the first tag of a page that is not closed where it should be.
#[cfg(test)]
pub fn unbalanced(page: &str) -> Option<String> {
    const VOID: [&str; 4] = ["meta", "img", "br", "!doctype"];
    let mut open: Vec<&str> = Vec::new();
    for part in page.split('<').skip(1) {
        let Some((tag, _)) = part.split_once('>') else {
            return Some(format!("<{part}"));
        };
        let name = tag.split([' ', '\n']).next().unwrap_or_default();
        if tag.matches('"').count() % 2 == 1 {
            return Some(format!("<{tag}>"));
        } else if let Some(name) = name.strip_prefix('/') {
            if open.pop() != Some(name) {
                return Some(format!("</{name}>"));
            }
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    open.pop().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_cannot_become_markup() {
        let page = page("a<b>&\"c'", "", "<p>text</p>");
        assert!(
            page.contains("<title>a&lt;b&gt;&amp;&quot;c&#39;</title>"),
            "{page}"
        );
        assert_eq!(unbalanced(&page), None);
    }

    #[test]
    fn tags_that_do_not_match_are_found() {
        assert_eq!(unbalanced("<p><b>x</p></b>").as_deref(), Some("</p>"));
        assert_eq!(unbalanced("<p>").as_deref(), Some("p"));
        assert_eq!(
            unbalanced("<p class=\"a>x</p>").as_deref(),
            Some("<p class=\"a>")
        );
        assert_eq!(unbalanced("<p><path d=\"\"/><br></p>"), None);
    }
}
