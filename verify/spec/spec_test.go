package spec

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestJSONIsStable(t *testing.T) {
	s := Spec{
		Checks: []Check{
			{Type: TLS, Name: "web", Timeout: 5 * time.Second, Addr: "127.0.0.1:8443", SNI: "www.example.org", Cert: "etc/cert.pem"},
			{Type: HTTP, URL: "https://127.0.0.1/", Status: "204", JSON: "/id", Equals: "{newid}", Insecure: true},
			{Type: Exec, Args: []string{"bin/selftest", ""}},
		},
		Successes: 3, Total: 90 * time.Second, Soak: time.Hour,
	}
	const want = `{"Checks":[` +
		`{"Type":"tls","Name":"web","Addr":"127.0.0.1:8443","SNI":"www.example.org","Cert":"etc/cert.pem","Timeout":"5s"},` +
		`{"Type":"http","URL":"https://127.0.0.1/","Status":"204","JSON":"/id","Equals":"{newid}","Insecure":true},` +
		`{"Type":"exec","Args":["bin/selftest",""]}],` +
		`"Successes":3,"Total":"1m30s","Soak":"1h0m0s"}`
	b, err := json.Marshal(s)
	if err != nil || string(b) != want {
		t.Fatalf("Marshal = %s, %v\nwant %s", b, err, want)
	}
	var got Spec
	if err := json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("Unmarshal\n got %+v, %v\nwant %+v", got, err, s)
	}
	if b, err := json.Marshal(Spec{}); string(b) != "{}" {
		t.Errorf("Marshal(Spec{}) = %s, %v, want {}", b, err)
	}
}

// A field that a reader passes over is something that goes unchecked, with a
// check that passes.
func TestReadersRefuseWhatTheyDoNotKnowOfACheck(t *testing.T) {
	var s Spec
	const ok = `{"Checks":[{"Type":"tcp","Addr":"a:1"}],"Weather":{"Rain":true}}`
	if err := json.Unmarshal([]byte(ok), &s); err != nil || len(s.Checks) != 1 || s.Checks[0].Addr != "a:1" {
		t.Errorf("Unmarshal(%s) = %+v, %v", ok, s, err)
	}
	for text, want := range map[string]string{
		`{"Checks":[{"Type":"tcp","Addr":"a:1","Colour":"red"}]}`: `unknown field "Colour" of a check: whoever wrote it is newer`,
		`{"Checks":[{"Type":"dns","Addr":"a:1"}]}`:                `unknown type "dns"`,
		`{"Checks":[{"Type":"","Addr":"a:1"}]}`:                   `unknown type ""`,
		`{"Checks":[{"Type":"tcp","Addr":"a:1","Timeout":"x"}]}`:  `want a duration such as 10s`,
		`{"Soak":"forever"}`:                                      `want a duration such as 10s`,
		`{"Total":10}`:                                            `Total`,
	} {
		if err := json.Unmarshal([]byte(text), &s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Unmarshal(%s) = %v, want ...%s", text, err, want)
		}
	}
	if err := json.Unmarshal([]byte(`{"Checks":[{"Addr":"a:1"}]}`), &s); err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(FromRegistry); err == nil || !strings.Contains(err.Error(), "type is missing") {
		t.Errorf("Validate of a check without a type = %v", err)
	}
}

func TestJSONTakesAFingerprintAsPeopleWriteIt(t *testing.T) {
	var c Check
	err := json.Unmarshal([]byte(`{"Type":"tls","Addr":"a:1","Fingerprint":"`+hexColon+`"}`), &c)
	if err != nil || c.Fingerprint != hexLower {
		t.Errorf("Fingerprint = %s, %v, want %s", c.Fingerprint, err, hexLower)
	}
}

func TestValidateHoldsEveryRule(t *testing.T) {
	tls := func(f func(*Check)) Check {
		c := Check{Type: TLS, Addr: "a:1", Cert: "c.pem"}
		f(&c)
		return c
	}
	get := func(f func(*Check)) Check {
		c := Check{Type: HTTP, URL: "https://h/"}
		f(&c)
		return c
	}
	for name, row := range map[string]struct {
		c    Check
		want string // "" is valid
	}{
		"tls":                   {tls(func(*Check) {}), ""},
		"type made up":          {Check{Type: "dns"}, `unknown type "dns"`},
		"name":                  {tls(func(c *Check) { c.Name = "a b" }), "name"},
		"name hidden":           {tls(func(c *Check) { c.Name = ".a" }), "name"},
		"name long":             {tls(func(c *Check) { c.Name = strings.Repeat("a", 129) }), "name"},
		"name longest":          {tls(func(c *Check) { c.Name = strings.Repeat("a", 128) }), ""},
		"timeout negative":      {tls(func(c *Check) { c.Timeout = -1 }), "timeout"},
		"timeout long":          {tls(func(c *Check) { c.Timeout = time.Hour }), "timeout"},
		"addr without port":     {tls(func(c *Check) { c.Addr = "a" }), "addr"},
		"addr without host":     {tls(func(c *Check) { c.Addr = ":1" }), "addr"},
		"addr port 0":           {tls(func(c *Check) { c.Addr = "a:0" }), "addr"},
		"addr port name":        {tls(func(c *Check) { c.Addr = "a:https" }), "addr"},
		"addr port large":       {tls(func(c *Check) { c.Addr = "a:65536" }), "addr"},
		"addr bare v6":          {tls(func(c *Check) { c.Addr = "::1:443" }), "addr"},
		"addr bracketed name":   {tls(func(c *Check) { c.Addr = "[a]:443" }), "addr"},
		"addr v6":               {tls(func(c *Check) { c.Addr = "[fe80::1%eth0]:443" }), ""},
		"addr control":          {tls(func(c *Check) { c.Addr = "a\n:1" }), "addr"},
		"sni address":           {tls(func(c *Check) { c.SNI = "127.0.0.1" }), "sni"},
		"sni space":             {tls(func(c *Check) { c.SNI = "a b" }), "sni"},
		"cert and fingerprint":  {tls(func(c *Check) { c.Fingerprint = hexLower }), "one of cert, fingerprint and spki"},
		"neither":               {tls(func(c *Check) { c.Cert = "" }), "one of cert, fingerprint and spki"},
		"cert absolute":         {tls(func(c *Check) { c.Cert = "/etc/c.pem" }), "cert"},
		"cert outside":          {tls(func(c *Check) { c.Cert = "../c.pem" }), "cert"},
		"cert not clean":        {tls(func(c *Check) { c.Cert = "etc//c.pem" }), "cert"},
		"cert the root":         {tls(func(c *Check) { c.Cert = "." }), "cert"},
		"cert control":          {tls(func(c *Check) { c.Cert = "etc/\x1b[2J" }), "cert"},
		"fingerprint upper":     {tls(func(c *Check) { c.Cert, c.Fingerprint = "", strings.ToUpper(hexLower) }), "fingerprint"},
		"key of another type":   {tls(func(c *Check) { c.URL = "http://h/" }), `unknown key "url"`},
		"args of another type":  {tls(func(c *Check) { c.Args = []string{"x"} }), `unknown key "arg"`},
		"http":                  {get(func(*Check) {}), ""},
		"url scheme":            {get(func(c *Check) { c.URL = "ftp://h/" }), "url"},
		"url relative":          {get(func(c *Check) { c.URL = "/version" }), "url"},
		"url without host":      {get(func(c *Check) { c.URL = "http:///x" }), "url"},
		"url port":              {get(func(c *Check) { c.URL = "http://h:0/" }), "url"},
		"url empty port":        {get(func(c *Check) { c.URL = "http://h:/" }), "url"},
		"url password":          {get(func(c *Check) { c.URL = "https://u:p@h/" }), "user or password"},
		"url fragment":          {get(func(c *Check) { c.URL = "https://h/#a" }), "fragment"},
		"insecure http":         {get(func(c *Check) { c.URL, c.Insecure = "http://h/", true }), "insecure"},
		"status":                {get(func(c *Check) { c.Status = "600" }), "status"},
		"json alone":            {get(func(c *Check) { c.JSON = "/id" }), "json and equals"},
		"equals alone":          {get(func(c *Check) { c.Equals = "x" }), "json and equals"},
		"placeholder mistyped":  {get(func(c *Check) { c.JSON, c.Equals = "/id", "v{newidd}" }), `equals: unknown placeholder "newidd" (did you mean "newid"?); known: newid, `},
		"placeholder upper":     {get(func(c *Check) { c.JSON, c.Equals = "/id", "{NewID}" }), `did you mean "newid"?`},
		"placeholders":          {get(func(c *Check) { c.JSON, c.Equals = "/id", "{newid}{oldid}{name}{revision}{newroot}" }), ""},
		"braces":                {get(func(c *Check) { c.JSON, c.Equals = "/id", "{} { newid } {1}" }), ""},
		"braces in body":        {get(func(c *Check) { c.Body = "{newidd}" }), ""},
		"pointer relative":      {get(func(c *Check) { c.JSON, c.Equals = "id", "x" }), "JSON pointer"},
		"pointer escape":        {get(func(c *Check) { c.JSON, c.Equals = "/a~2", "x" }), "JSON pointer"},
		"pointer ends in tilde": {get(func(c *Check) { c.JSON, c.Equals = "/a~", "x" }), "JSON pointer"},
		"host":                  {get(func(c *Check) { c.Host = "a/b" }), "host"},
		"host with user":        {get(func(c *Check) { c.Host = "u@h" }), "host"},
		"host with port":        {get(func(c *Check) { c.Host = "h:1" }), ""},
		"body not UTF-8":        {get(func(c *Check) { c.Body = "\xff" }), "want UTF-8"},
		"body long":             {get(func(c *Check) { c.Body = strings.Repeat("a", MaxTextBytes+1) }), "4097 bytes"},
		"sni none":              {tls(func(c *Check) { c.SNI = NoName }), ""},
		"spki and cert":         {tls(func(c *Check) { c.SPKI = hexLower }), "one of cert, fingerprint and spki"},
		"spki upper":            {tls(func(c *Check) { c.Cert, c.SPKI = "", strings.ToUpper(hexLower) }), "spki"},
		"chain alone":           {tls(func(c *Check) { c.Cert, c.Chain = "", true }), ""},
		"hostname alone":        {tls(func(c *Check) { c.Cert, c.Hostname = "", "::1" }), ""},
		"minvalid alone":        {tls(func(c *Check) { c.Cert, c.MinValid = "", day }), ""},
		"min alone":             {tls(func(c *Check) { c.Cert, c.Min = "", "1.3" }), "want one of"},
		"hostname none":         {tls(func(c *Check) { c.Hostname = NoName }), "chain=true"},
		"hostname none, chain":  {tls(func(c *Check) { c.Hostname, c.Chain = NoName, true }), ""},
		"hostname bad":          {tls(func(c *Check) { c.Hostname = "a b" }), "hostname"},
		"roots without chain":   {tls(func(c *Check) { c.Roots = "ca.pem" }), "chain=true"},
		"roots outside":         {tls(func(c *Check) { c.Roots, c.Chain = "../ca.pem", true }), "roots"},
		"roots system":          {tls(func(c *Check) { c.Roots, c.Chain = SystemRoots, true }), ""},
		"key":                   {tls(func(c *Check) { c.Key = "dsa" }), `unknown key "dsa"`},
		"key and TLS 1.3":       {tls(func(c *Check) { c.Key, c.Min = "rsa", "1.3" }), "up to TLS 1.2"},
		"min":                   {tls(func(c *Check) { c.Min = "1.4" }), `unknown min "1.4"`},
		"alpn control":          {tls(func(c *Check) { c.ALPN = "h2\n" }), "alpn"},
		"minvalid long":         {tls(func(c *Check) { c.MinValid = MaxValid + 1 }), "up to 3650d"},
		"warn negative":         {tls(func(c *Check) { c.Warn = -1 }), "up to 3650d"},
		"starttls":              {tls(func(c *Check) { c.StartTLS = "xmpp" }), `unknown starttls "xmpp"`},
		"network":               {tls(func(c *Check) { c.Network = "udp4" }), `unknown network "udp4"`},
		"addresses none":        {tls(func(c *Check) { c.Addresses = "0" }), "addresses"},
		"addresses many":        {tls(func(c *Check) { c.Addresses = "33" }), "addresses"},
		"addresses odd":         {tls(func(c *Check) { c.Addresses = "+1" }), "addresses"},
		"addr and unix":         {tls(func(c *Check) { c.Unix = "/run/x" }), "one of addr and unix"},
		"unix relative":         {tls(func(c *Check) { c.Addr, c.Unix = "", "run/x" }), "absolute path"},
		"unix long":             {tls(func(c *Check) { c.Addr, c.Unix = "", "/"+strings.Repeat("x", 107) }), "107 bytes"},
		"unix with network":     {get(func(c *Check) { c.Unix, c.Network = "/run/x", "tcp4" }), "no network"},
		"status list":           {get(func(c *Check) { c.Status = "200,301-303" }), ""},
		"status backwards":      {get(func(c *Check) { c.Status = "303-301" }), "status"},
		"status trailing":       {get(func(c *Check) { c.Status = "200," }), "status"},
		"status low":            {get(func(c *Check) { c.Status = "099" }), "status"},
		"method":                {get(func(c *Check) { c.Method = "POST" }), `unknown method "POST"`},
		"HEAD with a body":      {get(func(c *Check) { c.Method, c.Body = "HEAD", "x" }), "no body"},
		"header":                {get(func(c *Check) { c.Headers = []string{"X-A: b: c"} }), ""},
		"header without value":  {get(func(c *Check) { c.Headers = []string{"X-A"} }), "NAME: VALUE"},
		"header with two lines": {get(func(c *Check) { c.Headers = []string{"X-A: b\r\nHost: c"} }), "NAME: VALUE"},
		"header of its own":     {get(func(c *Check) { c.Headers = []string{"HOST: b"} }), "cannot be chosen"},
		"headers many":          {get(func(c *Check) { c.Headers = strings.Split(strings.Repeat("A", MaxArgs+1), "") }), "65 headers"},
		"escape":                {Check{Type: TCP, Addr: "a:1", Expect: `\q`}, "expect"},
		"tcp":                   {Check{Type: TCP, Addr: "a:1", Expect: "220 \r\n"}, ""},
		"tcp without addr":      {Check{Type: TCP}, "addr"},
		"exec without program":  {Check{Type: Exec}, "arg=PROGRAM"},
		"exec empty program":    {Check{Type: Exec, Args: []string{""}}, "arg=PROGRAM"},
		"exec NUL":              {Check{Type: Exec, Args: []string{"a", "b\x00"}}, "NUL"},
		"exec many":             {Check{Type: Exec, Args: strings.Split(strings.Repeat("a", MaxArgs+1), "")}, "65 args"},
	} {
		err := row.c.Validate(FromHost)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: Validate() = %v, want %q", name, err, row.want)
		}
	}
}

func TestValidateOfASpec(t *testing.T) {
	tcp := Check{Type: TCP, Addr: "a:1"}
	named := Check{Type: TCP, Addr: "a:1", Name: "tcp-1"}
	for name, row := range map[string]struct {
		s    Spec
		want string
	}{
		"empty":                  {Spec{}, ""},
		"two without names":      {Spec{Checks: []Check{tcp, tcp}}, ""},
		"name twice":             {Spec{Checks: []Check{named, named}}, "given twice"},
		"name of a nameless one": {Spec{Checks: []Check{tcp, named}}, "given twice"},
		"bad check":              {Spec{Checks: []Check{tcp, {Type: TCP}}}, `check "tcp-2": want one of addr`},
		"many":                   {Spec{Checks: make([]Check, MaxChecks+1)}, "65 checks"},
		"successes negative":     {Spec{Successes: -1}, "successes"},
		"successes many":         {Spec{Successes: MaxSuccesses + 1}, "successes"},
		"total negative":         {Spec{Total: -1}, "total"},
		"total long":             {Spec{Total: MaxTotal + 1}, "total"},
		"soak negative":          {Spec{Soak: -1}, "soak"},
		"soak long":              {Spec{Soak: MaxSoak + 1}, "soak"},
	} {
		err := row.s.Validate(FromRegistry)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: Validate() = %v, want %q", name, err, row.want)
		}
	}
}

func TestDefaultsAreThoseOfTheDesign(t *testing.T) {
	s := Spec{Checks: []Check{
		{Type: TLS, Addr: "www.example.org:443", Cert: "c"},
		{Type: TLS, Addr: "127.0.0.1:443", Cert: "c", Name: "local"},
		{Type: HTTP, URL: "http://h/", Timeout: time.Second},
	}}
	got := s.WithDefaults()
	want := Spec{Successes: 1, Total: 2 * time.Minute, Checks: []Check{
		{Type: TLS, Name: "tls-1", Addr: "www.example.org:443", SNI: "www.example.org", Cert: "c", Timeout: 10 * time.Second, Min: "1.2"},
		{Type: TLS, Name: "local", Addr: "127.0.0.1:443", Cert: "c", Timeout: 10 * time.Second, Min: "1.2"},
		{Type: HTTP, Name: "http-3", URL: "http://h/", Timeout: time.Second, Status: "200"},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("WithDefaults()\n got %+v\nwant %+v", got, want)
	}
	if s.Checks[0].Name != "" {
		t.Error("WithDefaults changed its receiver's checks")
	}
	if err := got.Validate(FromRegistry); err != nil {
		t.Errorf("Validate of the defaults = %v", err)
	}
}
