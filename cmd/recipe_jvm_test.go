package cmd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var jvmRecipe = recipe{
	name:    "jvm",
	version: `java -version 2>&1 | sed -n 's,.*"\(.*\)".*,OpenJDK \1,p'`,
	root:    files{"html/health.json": `{"ok": true}`}, // and app.jar
	spoiled: map[string]files{
		validateFails: {"app.jar": "PK no more"},
		reloadFails:   {"fails": "as soon as it is started"},
		wrong:         {"html/health.json": `{"ok": false}`},
	},
	refused: "Invalid or corrupt jarfile",
	prepare: func(t *testing.T, p *place) {
		hostCertificate(t, p)
		writeFile(t, p, "run/nginx.conf", jvmProxy)
		writeFile(t, p, "run/systemctl", jvmSystemctl)
		runShell(t, p, "chmod +x run/systemctl")
		buildJar(t, p.file("run"))
		p.root["app.jar"] = p.text("run/app.jar")
	},
	vars: []string{
		"SYSTEMCTL={dir}/run/systemctl", "PORTS=18081 18082", "WAIT=20",
		"READY=curl -fs -o /dev/null http://{host}:$port/ready",
	},
	checks: []string{
		"type=http,url=https://{addr}/deployed,insecure=true,body={newroot}",
		"type=http,url=https://{addr}/health.json,insecure=true,json=/ok,equals=true",
	},
	served: servedText,
}

// buildJar makes app.jar in a directory.
func buildJar(t *testing.T, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "App.java"), []byte(jvmApp), 0o600); err != nil {
		t.Fatal(err)
	}
	shell(t, dir, "javac App.java && jar --create --file app.jar --main-class App App*.class")
}

// TestRecipesKeystore: the check opens the keystore of the root with the host's
// password.
func TestRecipesKeystore(t *testing.T) {
	if !slices.ContainsFunc(chosen(t, os.Getenv(recipesVar)), func(r recipe) bool { return r.name == "jvm" }) {
		return
	}
	script, err := filepath.Abs("../scripts/hooks/jvm.sh")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	buildJar(t, dir)
	shell(t, dir, `echo -n correct1 >password
keytool -genkeypair -keystore site.p12 -storepass:file password -alias site -keyalg EC -dname CN=site.test
head -c 400 site.p12 >damaged.p12
echo -n another1 >wrong`)
	for name, c := range map[string]struct{ vars, says string }{
		"good":             {"KEYSTORE=site.p12 PASSWORD=password", ""},
		"none":             {"PASSWORD=missing", ""},
		"damaged":          {"KEYSTORE=damaged.p12 PASSWORD=password", "keytool error"},
		"not in the root":  {"KEYSTORE=nowhere.p12 PASSWORD=password", "does not exist"},
		"another password": {"KEYSTORE=site.p12 PASSWORD=wrong", "password was incorrect"},
	} {
		cmd := exec.Command(script)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "DEPLOY_PHASE=check", "NEWROOT="+dir)
		cmd.Env = append(cmd.Env, strings.Fields(c.vars)...)
		out, err := cmd.CombinedOutput()
		if (err == nil) != (c.says == "") || !strings.Contains(string(out), c.says) || strings.Contains(string(out), "correct1") {
			t.Errorf("%s: %v, %q; want %q", name, err, out, c.says)
		}
	}
}

// jvmSystemctl is of systemctl what jvm.sh says, for instances of the unit of
// docs/recipes/jvm.md, of which no job succeeds while there is a file refuse. It
// also starts the proxy.
const jvmSystemctl = `#!/bin/sh
set -eu
if [ -e refuse ]; then
	echo 'error: the reload is refused' >&2
	exit 1
fi
[ -s run/nginx.pid ] && [ -e "/proc/$(cat run/nginx.pid)/exe" ] || nginx -c {dir}/run/nginx.conf
for unit; do :; done
port=${unit#app@}
pid=$(cat run/$port.main 2>/dev/null) && [ -e "/proc/$pid/exe" ] || pid=0
case $* in
'show --property=MainPID --value app@'*)
	echo $pid
	;;
'enable --now app@'*)
	[ $pid = 0 ] || exit 0
	cd -P {current}
	java -Xmx64m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -jar app.jar {host} $port >>{dir}/run/java.log 2>&1 &
	echo $! >{dir}/run/$port.main
	;;
'disable --now app@'*)
	[ $pid != 0 ] || exit 0
	kill $pid
	while [ -e "/proc/$pid/exe" ]; do sleep 0.1; done
	;;
*)
	echo "systemctl $*: not here" >&2
	exit 1
	;;
esac
cat {dir}/run/nginx.pid {dir}/run/*.main >{dir}/run/pid
`

var jvmProxy = nginxSettings("nginx.pid", `	upstream app {
		server {host}:18081 max_fails=0;
		server {host}:18082 max_fails=0;
	}
	server {
		listen {addr} ssl;
		ssl_certificate {dir}/run/host.pem;
		ssl_certificate_key {dir}/run/host.pem;
		location / {
			proxy_pass http://app;
			proxy_next_upstream error timeout http_503;
		}
	}
`)

// jvmApp answers with the files of html/, when it is ready.
const jvmApp = `
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.nio.file.*;
import java.util.concurrent.Executors;

public class App {
	public static void main(String[] args) throws Exception {
		Path root = Path.of("").toAbsolutePath();
		if (Files.exists(root.resolve("fails"))) throw new IllegalStateException("cannot start");
		Thread.sleep(Files.exists(root.resolve("slow")) ? 5000 : 500);
		HttpServer server = HttpServer.create(new InetSocketAddress(args[0], Integer.parseInt(args[1])), 0);
		server.setExecutor(Executors.newFixedThreadPool(8));
		server.createContext("/", exchange -> {
			String name = exchange.getRequestURI().getPath();
			byte[] body = switch (name) {
				case "/ready" -> new byte[] {'\n'};
				case "/deployed" -> root.toString().getBytes();
				default -> Files.readAllBytes(root.resolve("html" + name));
			};
			exchange.sendResponseHeaders(200, body.length);
			exchange.getResponseBody().write(body);
			exchange.close();
		});
		Runtime.getRuntime().addShutdownHook(new Thread(() -> server.stop(1)));
		server.start();
	}
}
`
