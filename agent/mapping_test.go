package agent

import (
	"slices"
	"strings"
	"testing"
)

func TestMappingIsReadBack(t *testing.T) {
	for text, want := range map[string]string{
		"etc/site.pem=/etc/nginx/site.pem":          "",
		"etc/site.pem=/etc/nginx/site.pem,mode=640": "etc/site.pem=/etc/nginx/site.pem,mode=0640",
		"a//b/../c=/d": "a/c=/d",
		"k=/etc/k,optional=true,group=www-data/nginx,owner=0,mode=0400": "k=/etc/k,mode=0400,owner=0,group=www-data/nginx,optional=true",
		`k="/etc/a,b"`:            "",
		`k="/etc/a""b,"`:          "",
		"k=/etc/k,optional=false": "k=/etc/k",
		".deploy/x y=/etc/x y":    "",
		"etc/site.pem=/etc/nginx/site.pem,mode=0640,owner=root,group=nginx/www-data": "",
	} {
		m, err := ParseMapping(text)
		if want == "" {
			want = text
		}
		if err != nil || m.String() != want {
			t.Errorf("ParseMapping(%q) = %q, %v, want %q", text, m, err, want)
			continue
		}
		if again, err := ParseMapping(m.String()); err != nil || again.String() != want {
			t.Errorf("ParseMapping(%q) = %q, %v: not what was written", m, again, err)
		}
	}
}

func TestMappingRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "want FILE=/PATH",
		"etc/site.pem":             "want FILE=/PATH",
		"/etc/site.pem=/etc/x":     "file in the root",
		"../x=/etc/x":              "file in the root",
		"a/../..=/etc/x":           "file in the root",
		".=/etc/x":                 "file in the root",
		"etc/=/etc/x":              "file in the root",
		"=/etc/x":                  "file in the root",
		"x=etc/x":                  "absolute path",
		"x=":                       "absolute path",
		"x=/":                      "absolute path",
		"x=/etc/../x":              "absolute path",
		"x=/etc/x/":                "absolute path",
		"x=/etc//x":                "absolute path",
		"x=/etc/x\x00":             "control characters",
		"x\n=/etc/x":               "control characters",
		"x=/etc/x,mode=4755":       "permissions",
		"x=/etc/x,mode=0":          "permissions",
		"x=/etc/x,mode=rw":         "permissions",
		"x=/etc/x,mode=":           "permissions",
		"x=/etc/x,owner=":          "name or number",
		"x=/etc/x,owner=root:root": "name or number",
		"x=/etc/x,group=a//b":      "name or number",
		"x=/etc/x,optional=yes":    "true or false",
		"x=/etc/x,owner=a,owner=b": "given twice",
		"x=/etc/x,user=a":          "unknown key",
		"x=/etc/x,mode":            "want KEY=VALUE",
		`x="/etc/x`:                "never closed",
		"x=/etc/x,":                "want KEY=VALUE",
		`x="/etc/x"y`:              "comma",
	} {
		if m, err := ParseMapping(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseMapping(%q) = %q, %v, want an error with %q", text, m, err, want)
		}
	}
}

func TestMappingsOfARootNameTheLineThatIsBad(t *testing.T) {
	all, err := parseMappings([]byte("# certificates\n\n  etc/a=/etc/a  \r\n#x\netc/b=/etc/b,mode=0600"))
	if err != nil || len(all) != 2 || all[0].To != "/etc/a" || all[1].String() != "etc/b=/etc/b,mode=0600" {
		t.Errorf("parseMappings = %v, %v", all, err)
	}
	_, err = parseMappings([]byte("etc/a=/etc/a\n#\netc/b=etc/b\n"))
	if err == nil || !strings.HasPrefix(err.Error(), ".deploy/publish, line 3: ") {
		t.Errorf("parseMappings = %v, want an error that names file and line", err)
	}
	var many strings.Builder
	for range maxMappings + 1 {
		many.WriteString("a=/b\n")
	}
	if _, err = parseMappings([]byte(many.String())); err == nil || !strings.Contains(err.Error(), "line 1001: there cannot be more") {
		t.Errorf("parseMappings of too many = %v", err)
	}
}

func TestBelowComparesComponents(t *testing.T) {
	for path, want := range map[string][]string{
		"/etc/nginx/certs/a.pem": {"/etc/nginx", "/etc", "/", "/etc/nginx/certs", "/etc/nginx/"},
		"/etc/nginx-old/a.pem":   {"/etc", "/"},
		"/etc/nginx":             {"/etc", "/"},
		"/..etc/a":               {"/"},
	} {
		for _, prefix := range []string{"/etc/nginx", "/etc/nginx/", "/etc", "/", "/etc/nginx/certs", "/etc/nginx/certs/a.pem"} {
			if got := below(path, []string{"/nowhere", prefix}); got != slices.Contains(want, prefix) {
				t.Errorf("below(%q, %q) = %t", path, prefix, got)
			}
		}
	}
	if below("/etc/a", nil) {
		t.Error("a path is below no prefix at all")
	}
}
