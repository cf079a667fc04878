package wire

import (
	"errors"
	"regexp"
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	both := []string{"a", "Z", "0", "code", "v01", "a.b_c+d@e-f", "7-", "a..", "x--", strings.Repeat("a", MaxName)}
	versions := []string{"v:1", "1.0~rc1", "a:", "a~"}
	never := []string{
		"", ".", "..", ".a", "-a", "_a", "+a", "@a", ":a", "~a", "a/b", "../a", "a b", " a", "a ", "a\n", "a\x00", "a\x1b[31m", "a\x7f",
		"ä", "a\u202e", "a\xff", "a*", "a?", "a$b", "a;b", "a'b", `a"b`, `a\b`, "a%b", "a=b", "a,b", "a#b", strings.Repeat("a", MaxName+1),
	}
	for _, s := range both {
		if err := errors.Join(CheckName(s), CheckVersion(s)); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range versions {
		if err := CheckVersion(s); err != nil {
			t.Errorf("CheckVersion(%q) = %v", s, err)
		}
		if err := CheckName(s); !errors.Is(err, ErrName) {
			t.Errorf("CheckName(%q) = %v, want ErrName", s, err)
		}
	}
	for _, s := range never {
		if err := CheckName(s); !errors.Is(err, ErrName) || len(err.Error()) > 300 {
			t.Errorf("CheckName(%q) = %v, want ErrName", s, err)
		}
		if err := CheckVersion(s); !errors.Is(err, ErrVersionName) {
			t.Errorf("CheckVersion(%q) = %v, want ErrVersionName", s, err)
		}
	}
}

// The rule in the documents is the rule of the code.
func FuzzNames(f *testing.F) {
	name := regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._+@-]{0,127}\z`)
	version := regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._+@:~-]{0,127}\z`)
	f.Add("code")
	f.Add("v1:2~\n")
	f.Fuzz(func(t *testing.T, s string) {
		if got := CheckName(s) == nil; got != name.MatchString(s) {
			t.Errorf("CheckName(%q) is nil: %t", s, got)
		}
		if got := CheckVersion(s) == nil; got != version.MatchString(s) {
			t.Errorf("CheckVersion(%q) is nil: %t", s, got)
		}
	})
}
