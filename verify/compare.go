package verify

// Worse returns the failures of now that are not in baseline: the same check of
// the same target failing with the same kind. A check that was cancelled, or
// that cannot be carried out, tells nothing of its target and is always worse.
func Worse(baseline, now Report) []Finding {
	type look struct{ check, typ, target, kind string }
	key := func(f Finding) look {
		return look{f.Check, string(f.Type), f.Target, string(f.Kind)}
	}
	before := map[look]bool{}
	for _, f := range baseline.Failed() {
		before[key(f)] = f.Kind != Cancelled && f.Kind != Spec
	}
	var worse []Finding
	for _, f := range now.Failed() {
		if !before[key(f)] {
			worse = append(worse, f)
		}
	}
	return worse
}

// Environment reports whether now failed only for reasons that were there
// before the switch: something failed, and nothing is Worse. What was switched
// to is then not to blame, and not verified either. The caller knows whether
// there was an OLDROOT that baseline looked at; without one there is no
// baseline, and its zero value makes this false.
func Environment(baseline, now Report) bool {
	return len(now.Failed()) > 0 && len(Worse(baseline, now)) == 0
}
