use std::collections::BTreeMap;

use data::StudyUid;
use metrics::Bootstrap;

use super::*;

const HOSTILE: &str = "</title></code><script>alert('1')</script><img src=x onerror=\"alert(2)\">";

#[test]
fn text_from_a_run_never_becomes_markup() {
    let evaluation = Evaluation {
        run: HOSTILE.into(),
        plan_hash: HOSTILE.into(),
        bootstrap: Bootstrap {
            resamples: 0,
            seed: 0,
            level: 0.95,
        },
        drawn: "studies",
        missing: vec![HOSTILE.into()],
        unchecked: vec![HOSTILE.into()],
        stages: BTreeMap::new(),
        labels: Vec::new(),
        vertebra_bins: Vec::new(),
        studies: Vec::new(),
    };
    let text = page::page(&evaluation.run, STYLE, &intro(&evaluation));
    assert!(
        !text.contains("<script") && !text.contains("<img"),
        "{text}"
    );
    // The title twice, the plan, and the two lists.
    assert_eq!(text.matches("&lt;script&gt;").count(), 5, "{text}");
    assert_eq!(page::unbalanced(&text), None);
    assert!(StudyUid::new(HOSTILE).is_err(), "no study has such a name");
}
