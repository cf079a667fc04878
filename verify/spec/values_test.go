package spec

import (
	"encoding/json"
	"testing"
	"time"
)

func TestUnescapeIsOneByteForEachEscape(t *testing.T) {
	for in, want := range map[string]string{
		"":               "",
		"plain, ünïcode": "plain, ünïcode",
		`a\r\n\t\\r`:     "a\r\n\t\\r",
		`\x00\xff\x7Fx`:  "\x00\xff\x7fx",
	} {
		if got, err := Unescape(in); string(got) != want || err != nil {
			t.Errorf("Unescape(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{`\`, `a\`, `\q`, `\x`, `\x1`, `\xzz`, `\ `, `\R`} {
		if got, err := Unescape(in); err == nil {
			t.Errorf("Unescape(%q) = %q, want an error", in, got)
		}
	}
}

func TestStatusIsAListOfNumbersAndRanges(t *testing.T) {
	for status, want := range map[Status]map[int]bool{
		"200":             {200: true, 201: false, 20: false},
		"200,204,301-303": {200: true, 204: true, 300: false, 301: true, 302: true, 303: true, 304: false},
		"":                {200: false, 0: false},
		"2xx":             {200: false},
	} {
		for n, has := range want {
			if got := status.Has(n); got != has {
				t.Errorf("Status(%q).Has(%d) = %v, want %v", status, n, got, has)
			}
		}
	}
}

// Records of before hold it as a number.
func TestStatusMayBeANumberInJSON(t *testing.T) {
	var c Check
	if err := json.Unmarshal([]byte(`{"Type":"http","URL":"http://h/","Status":204}`), &c); err != nil || c.Status != "204" {
		t.Errorf("Status = %q, %v, want 204", c.Status, err)
	}
	if err := json.Unmarshal([]byte(`{"Type":"http","URL":"http://h/","Status":[204]}`), &c); err == nil {
		t.Errorf("a list was taken as %q", c.Status)
	}
}

func TestDurationsMayBeDays(t *testing.T) {
	for in, want := range map[string]time.Duration{"30d": 30 * day, "36h": 36 * time.Hour, "1m30s": 90 * time.Second} {
		got, err := parseSpan(in)
		if err != nil || got != want {
			t.Errorf("parseSpan(%q) = %v, %v, want %v", in, got, err, want)
		}
		if again, err := parseSpan(formatSpan(got)); err != nil || again != want {
			t.Errorf("parseSpan(%q) = %v, %v, want %v", formatSpan(got), again, err, want)
		}
	}
	for _, in := range []string{"", "d", "1.5d", "-1d", "99999999d", "30"} {
		if got, err := parseSpan(in); err == nil {
			t.Errorf("parseSpan(%q) = %v, want an error", in, got)
		}
	}
}

func TestHowManyAddressesMustPass(t *testing.T) {
	for word, want := range map[string]int{"": 0, AllAddresses: 3, "2": 2} {
		if got := (Check{Addresses: word}).NeedAddresses(3); got != want {
			t.Errorf("NeedAddresses(3) with %q = %d, want %d", word, got, want)
		}
	}
}
