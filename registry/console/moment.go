package console

import (
	"strconv"
	"strings"
	"time"
)

// forms are how a time is written, in UTC but for the first.
var forms = []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"}

// Moment reads the value of a flag that is a time, or a duration before now
// (sign -1) or after it (1). Days are 24 hours: 2d. Empty text is the zero time.
func Moment(flag, text string, now time.Time, sign time.Duration) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, form := range forms {
		if t, err := time.Parse(form, text); err == nil {
			return t, nil
		}
	}
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d < 0 {
		return time.Time{}, usage("-%s %q: should be a time such as 2026-01-31 18:30, in UTC, or 2026-01-31T18:30:00+01:00, or a duration such as 90m or 2d", flag, text)
	}
	return now.Add(sign * d), nil
}
