package spec

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

const (
	hexLower = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	hexColon = "E3:B0:C4:42:98:FC:1C:14:9A:FB:F4:C8:99:6F:B9:24:27:AE:41:E4:64:9B:93:4C:A4:95:99:1B:78:52:B8:55"
)

// examples are valid checks in their text form, with what they mean.
var examples = map[string]Check{
	"type=tls,addr=127.0.0.1:8443,sni=www.example.org,cert=etc/cert.pem": {
		Type: TLS, Addr: "127.0.0.1:8443", SNI: "www.example.org", Cert: "etc/cert.pem"},
	"type=tls,addr=[::1]:443,fingerprint=" + hexColon: {
		Type: TLS, Addr: "[::1]:443", Fingerprint: hexLower},
	"type=http,url=https://127.0.0.1:8443/version,status=204,body=text,insecure=true": {
		Type: HTTP, URL: "https://127.0.0.1:8443/version", Status: "204", Body: "text", Insecure: true},
	"url=http://[::1]:80/a?b=c,type=http,host=www.example.org:8080,json=/a~1b/0,equals={newid},name=v.1": {
		Type: HTTP, URL: "http://[::1]:80/a?b=c", Host: "www.example.org:8080", JSON: "/a~1b/0", Equals: "{newid}", Name: "v.1"},
	`type=http,url=http://h/,body="{""a"":1,""b"":2}"`: {
		Type: HTTP, URL: "http://h/", Body: `{"a":1,"b":2}`},
	`type=http,url=http://h/,body={"a":1}`: {
		Type: HTTP, URL: "http://h/", Body: `{"a":1}`},
	`type=tcp,addr=mail:25,expect="220 ",timeout=1m30s`: {
		Type: TCP, Addr: "mail:25", Expect: "220 ", Timeout: 90 * time.Second},
	"type=tls,addr=mail:25,network=tcp6,addresses=2,starttls=smtp,sni=-,spki=" + hexColon + ",key=rsa,min=1.0,alpn=h2": {
		Type: TLS, Addr: "mail:25", Network: "tcp6", Addresses: "2", StartTLS: "smtp", SNI: NoName, SPKI: hexLower, Key: "rsa", Min: "1.0", ALPN: "h2"},
	"type=tls,unix=/run/x.sock,chain=true,roots=etc/ca.pem,hostname=www.example.org,minvalid=30d,warn=36h": {
		Type: TLS, Unix: "/run/x.sock", Chain: true, Roots: "etc/ca.pem", Hostname: "www.example.org", MinValid: 30 * day, Warn: 36 * time.Hour},
	`type=http,url=http://h/,method=HEAD,header=A: 1,header="B: 2,3",status="200,300-399",addresses=all`: {
		Type: HTTP, URL: "http://h/", Method: "HEAD", Headers: []string{"A: 1", "B: 2,3"}, Status: "200,300-399", Addresses: "all"},
	`type=tcp,addr=h:6379,send=PING\r\n,expect=+PONG\x0d,body=PONG`: {
		Type: TCP, Addr: "h:6379", Send: `PING\r\n`, Expect: `+PONG\x0d`, Body: "PONG"},
	`type=exec,arg=/bin/sh,arg=-c,arg="exit 0, or ""not""",arg=,arg=""`: {
		Type: Exec, Args: []string{"/bin/sh", "-c", `exit 0, or "not"`, "", ""}},
}

func TestParseReadsWhatTheDocumentShows(t *testing.T) {
	for text, want := range examples {
		got, err := Parse(text, FromHost)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("Parse(%s)\n got %+v, %v\nwant %+v", text, got, err, want)
		}
	}
}

func TestStringIsReadBack(t *testing.T) {
	for _, c := range examples {
		got, err := Parse(c.String(), FromHost)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("Parse(%s)\n got %+v, %v\nwant %+v", c, got, err, c)
		}
	}
	c := Check{Type: TCP, Name: "n", Addr: "a:1", Expect: `"a`, Timeout: time.Second}
	if got, want := c.String(), `type=tcp,name=n,addr=a:1,expect="""a",timeout=1s`; got != want {
		t.Errorf("String() = %s, want %s", got, want)
	}
}

func TestParseErrorsSayWhatWouldBeRight(t *testing.T) {
	for text, want := range map[string]string{
		"":                                        `"": want KEY=VALUE`,
		"type=tcp,addr=a:1,":                      `"": want KEY=VALUE`,
		"type=tcp,oops,addr=a:1":                  `"oops": want KEY=VALUE`,
		"type=tpc,addr=a:1":                       `unknown type "tpc" (did you mean "tcp"?)`,
		"type=tsl,addr=a:1":                       `unknown type "tsl" (did you mean "tls"?); known: tls, http, tcp, exec, process`,
		"type=quicksilver":                        `unknown type "quicksilver"; known: tls, http, tcp, exec, process`,
		"type=tls,adr=a:1":                        `unknown key "adr" (did you mean "addr"?); known: type, name, addr, unix, network, addresses, starttls, sni, cert, fingerprint, spki, key,`,
		"type=tcp, addr=a:1":                      `unknown key " addr" (did you mean "addr"?)`,
		"type=http,addr=a:1":                      `unknown key "addr"; known: type, name, unix, network, addresses, url,`,
		"addr=a:1":                                `type is missing; known: tls, http, tcp, exec, process`,
		"type=tcp,addr=a:1,addr=b:1":              `key "addr" is given twice`,
		"type=tcp,addr=":                          `addr: want a value`,
		`type=tcp,addr="a:1`:                      `addr: the double quote is never closed`,
		"type=process":                            `want one of unit and pidfile`,
		"type=process,unit=a,pidfile=/b":          `want one of unit and pidfile`,
		"type=process,unit=--all":                 `unit "--all": want the name of a service`,
		"type=process,pidfile=run/x":              `pidfile "run/x": want an absolute path`,
		`type=tcp,expect="a"b,addr=a:1`:           `expect: want a comma after the closing double quote`,
		"type=tcp,addr=a:1,timeout=10":            `timeout: "10": want a duration such as 10s`,
		"type=tcp,addr=a:1,timeout=-1s":           `timeout: "-1s": want a duration`,
		"type=http,url=http://h/,status=ok":       `status "ok": want 100 to 599`,
		"type=http,url=https://h/,insecure=yes":   `insecure: "yes": want true or false`,
		"type=tls,addr=a:1,fingerprint=" + "abcd": `fingerprint: "abcd": want the 64 hexadecimal digits`,
		"type=tcp,addr=a:1,send=a\\qb":            `send: "a\\qb": after a backslash want`,
		"type=tls,addr=a:1,chain=yes":             `chain: "yes": want true or false`,
		"type=tls,addr=a:1,minvalid=30":           `minvalid: "30": want a duration such as 10s, 12h or 30d`,
		"type=tls,addr=a:1,starttls=smpt":         `unknown starttls "smpt" (did you mean "smtp"?); known: smtp, imap,`,
		"type=tls,addr=a:1":                       `want one of cert, fingerprint and spki, or chain, hostname or minvalid`,
	} {
		_, err := Parse(text, FromHost)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q) = %v, want ...%s", text, err, want)
		}
	}
	if _, err := Parse("type=tcp,addr="+strings.Repeat("a", 1<<20), FromHost); err == nil || len(err.Error()) > 1000 {
		t.Errorf("Parse of a huge value: an error of %d bytes", len(err.Error()))
	}
}

func TestWhatLooksIntoTheHostIsForTheHostOnly(t *testing.T) {
	for text, c := range map[string]Check{
		"type=exec,arg=/bin/true":             {Type: Exec, Args: []string{"/bin/true"}},
		"type=process,unit=web.service":       {Type: Process, Unit: "web.service"},
		"type=process,pidfile=/run/w.pid":     {Type: Process, PIDFile: "/run/w.pid"},
		"type=tcp,unix=/run/x.sock":           {Type: TCP, Unix: "/run/x.sock"},
		"type=tcp,addr=a:1,send=x":            {Type: TCP, Addr: "a:1", Send: "x"},
		"type=http,url=http://h/,header=A: b": {Type: HTTP, URL: "http://h/", Headers: []string{"A: b"}},
	} {
		if got, err := Parse(text, FromHost); err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("Parse(%s, FromHost) = %+v, %v", text, got, err)
		}
		var zero Origin
		if _, err := Parse(text, zero); !errors.Is(err, ErrHostOnly) {
			t.Errorf("Parse(%s, zero) = %v, want ErrHostOnly", text, err)
		}
		s := Spec{Checks: []Check{c}}
		if err := s.Validate(FromRegistry); !errors.Is(err, ErrHostOnly) {
			t.Errorf("Validate(FromRegistry) = %v, want ErrHostOnly", err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for text := range examples {
		f.Add(text)
	}
	f.Add(`type=tcp,addr="[::1%a,""]:1",expect="""`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(text, FromHost)
		if err != nil {
			return
		}
		again, err := Parse(c.String(), FromHost)
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("Parse(%q)\n got %+v, %v\nwant %+v", c.String(), again, err, c)
		}
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatalf("Marshal(%+v) = %v", c, err)
		}
		var read Check
		if err := json.Unmarshal(b, &read); err != nil || !reflect.DeepEqual(read, c) {
			t.Errorf("Unmarshal(%s)\n got %+v, %v\nwant %+v", b, read, err, c)
		}
	})
}
