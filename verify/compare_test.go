package verify

import (
	"testing"
	"time"

	"deploytools/verify/spec"
)

// found is a report with one finding per pair of name and kind.
func found(pairs ...string) Report {
	var fs []Finding
	for i := 0; i < len(pairs); i += 2 {
		kind := Kind(pairs[i+1])
		fs = append(fs, Finding{Check: pairs[i], Type: spec.TCP, Target: "a:1", Kind: kind, OK: kind == ""})
	}
	return report(time.Now(), fs)
}

func TestEnvironmentIsWhatFailedTheSameWayBefore(t *testing.T) {
	moved := found("a", "dial")
	moved.Findings[0].Target = "b:1"
	for name, row := range map[string]struct {
		baseline, now Report
		worse         int
		environment   bool
	}{
		"same failure":        {found("a", "dial", "b", ""), found("a", "dial", "b", ""), 0, true},
		"two of two":          {found("a", "dial", "b", "json"), found("a", "dial", "b", "json"), 0, true},
		"one better":          {found("a", "dial", "b", "json"), found("a", "dial", "b", ""), 0, true},
		"another kind":        {found("a", "dial"), found("a", "timeout"), 1, false},
		"another check too":   {found("a", "dial", "b", ""), found("a", "dial", "b", "dial"), 1, false},
		"was good":            {found("a", ""), found("a", "dial"), 1, false},
		"new check":           {found("a", "dial"), found("z", "dial"), 1, false},
		"same name, moved":    {found("a", "dial"), moved, 1, false},
		"all good now":        {found("a", "dial"), found("a", ""), 0, false},
		"no checks":           {Report{}, found(), 0, false},
		"no baseline":         {Report{}, found("a", "dial"), 1, false},
		"cancelled both":      {found("a", "cancelled"), found("a", "cancelled"), 1, false},
		"never to be done":    {found("a", "spec"), found("a", "spec"), 1, false},
		"unsteady both times": {found("a", "unsteady"), found("a", "unsteady"), 0, true},
	} {
		if got := Worse(row.baseline, row.now); len(got) != row.worse {
			t.Errorf("%s: Worse = %v, want %d", name, got, row.worse)
		}
		if got := Environment(row.baseline, row.now); got != row.environment {
			t.Errorf("%s: Environment = %v, want %v", name, got, row.environment)
		}
	}
}
