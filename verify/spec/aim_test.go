package spec

import "testing"

func TestAt(t *testing.T) {
	for text, want := range map[string]string{
		"type=tls,addr=localhost:443,cert=c":                      "type=tls,addr=web1:443,sni=localhost,cert=c",
		"type=tls,addr=127.0.0.1:443,sni=www.example.org,cert=c":  "type=tls,addr=web1:443,sni=www.example.org,cert=c",
		"type=tls,addr=[::1]:443,cert=c":                          "type=tls,addr=web1:443,sni=-,cert=c",
		"type=tls,addr=127.0.0.1:443,cert=c,chain=true":           "type=tls,addr=web1:443,sni=-,cert=c,chain=true,hostname=127.0.0.1",
		"type=tls,addr=mail.example.org:25,starttls=smtp,cert=c":  "type=tls,addr=mail.example.org:25,starttls=smtp,sni=mail.example.org,cert=c",
		"type=tcp,addr=0.0.0.0:25":                                "type=tcp,addr=web1:25",
		"type=http,url=https://localhost/version":                 "type=http,url=https://web1/version,host=localhost",
		"type=http,url=http://127.0.0.1:8080/?a=b,host=x.example": "type=http,url=http://web1:8080/?a=b,host=x.example",
		"type=http,url=http://www.example.org/":                   "type=http,url=http://www.example.org/",
		"type=exec,arg=true":                                      "type=exec,arg=true",
	} {
		c, err := Parse(text, FromHost)
		if err != nil {
			t.Fatal(err)
		}
		want, err := Parse(want, FromHost)
		if err != nil {
			t.Fatal(err)
		}
		full := func(c Check) string { return Spec{Checks: []Check{c}}.WithDefaults().Checks[0].String() }
		got := Spec{Checks: []Check{c}}.WithDefaults().Checks[0].At("web1")
		if got.String() != full(want) {
			t.Errorf("%s at web1 is %s, want %s", text, got, full(want))
		}
		if err := got.At("2001:db8::1").Validate(FromHost); err != nil {
			t.Errorf("%s at web1 and an address: %v", text, err)
		}
	}
	c := Check{Type: TCP, Addr: "localhost:25"}
	if got := c.At("2001:db8::1").Addr; got != "[2001:db8::1]:25" {
		t.Errorf("at an IPv6 address: %s", got)
	}
	if c.At("a:b").Validate(FromHost) == nil || c.At("a/b").Validate(FromHost) == nil {
		t.Error("at what is no host: want it invalid")
	}
}
