package client_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

var fence = regexp.MustCompile("(?ms)^```js\n// (\\S+)\n(.*?)^```$")

// recipes returns the examples in the README by the name in their first line.
func recipes(t *testing.T) map[string]string {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, m := range fence.FindAllStringSubmatch(string(readme), -1) {
		found[m[1]] = m[2]
	}
	if n := strings.Count(string(readme), "```js"); n != len(found) || n != 3 {
		t.Fatalf("the README has %d examples, of which %d have a unique name", n, len(found))
	}
	return found
}

// requireFunction loads CommonJS packages.
const requireFunction = `
const loaded = {};
const need = name => {
	if (!(name in loaded)) {
		const [path, file = path] = name.split("/").length == 1 ? [name] : [name.split("/")[0], name.replace("/", "-")];
		const request = new XMLHttpRequest();
		request.open("GET", "/npm/" + path + "/cjs/" + file + ".production.js", false);
		request.send();
		const module = { exports: {} };
		new Function("require", "module", "exports", "process", request.responseText)(need, module, module.exports, { env: {} });
		loaded[name] = module.exports;
	}
	return loaded[name];
};
`

const reactModule = requireFunction + `
export const { createElement, useState, useEffect, useRef, useSyncExternalStore } = need("react");
export const { createRoot } = need("react-dom/client");
`

const importMap = `
document.head.append(Object.assign(document.createElement("script"), {type: "importmap", textContent: JSON.stringify({imports: {
	usercast: "/usercast.js", react: "/react-module.js", vue: "/npm/vue/dist/vue.esm-browser.prod.js",
}})}));
`

const reactApp = `
import { createElement, createRoot, useState } from "react";
import { useTopic, useStreamState } from "/react.js";
const List = ({ topic }) => {
	const [items, setItems] = useState([]);
	useTopic(topic, item => setItems(items => [...items, item.id]));
	return createElement("p", {}, topic + ": " + items.join());
};
const App = () => {
	const [topic, setTopic] = useState("activity");
	window.setTopic = setTopic;
	return createElement("div", {}, useStreamState(), createElement(List, { topic }));
};
const root = createRoot(document.getElementById("app"));
window.unmount = () => root.unmount();
root.render(createElement(App));
`

const vueApp = `
import { createApp, h, ref } from "vue";
import { useTopic, useStreamState } from "/vue.js";
const List = {
	props: ["topic"],
	setup({ topic }) {
		const items = ref([]);
		useTopic(topic, item => items.value.push(item.id));
		return () => h("p", topic + ": " + items.value.join());
	},
};
const topic = ref("activity");
window.setTopic = next => topic.value = next;
const app = createApp({
	setup() {
		const state = useStreamState();
		return () => h("div", [state.value, h(List, { topic: topic.value, key: topic.value })]);
	},
});
window.unmount = () => app.unmount();
app.mount("#app");
`

// The components in the recipes show published messages, and stop when they are unmounted.
func recipesWork(t *testing.T, w world) {
	recipes := recipes(t)
	for name, app := range map[string]string{"react.js": reactApp, "vue.js": vueApp} {
		t.Run(name, func(t *testing.T) {
			s := startSite(t, w.hub)
			s.files = map[string]string{"/react-module.js": reactModule, "/" + name: recipes[name], "/app.js": app}
			p := openTab(t, w, s)
			p.Run(importMap)
			p.Run(`import("/app.js")`)
			shows := func(text string) {
				t.Helper()
				p.Until("document.getElementById('app').textContent == '" + text + "'")
			}
			shows("openactivity: ")
			w.hub.publish(s.channel("activity"), `{"id": 1}`)
			w.hub.publish(s.channel("chat"), `{"id": 2}`)
			w.hub.publish(s.channel("activity"), `{"id": 3}`)
			shows("openactivity: 1,3")
			p.Run("setTopic('chat')")
			p.Until("document.getElementById('app').textContent.includes('chat')")
			before := p.Text("document.getElementById('app').textContent.split(' ')[1]")
			w.hub.publish(s.channel("activity"), `{"id": 4}`)
			w.hub.publish(s.channel("chat"), `{"id": 5}`)
			if before != "" { // React keeps the list, and Vue creates a new one
				before += ","
			}
			shows("openchat: " + before + "5")
			p.Run("unmount()")
			w.hub.publish(s.channel("chat"), "not JSON, which is not parsed")
			shows("")
			p.want("errors")
		})
	}
}

func quickStartWorks(t *testing.T, w world) {
	s := startSite(t, w.hub)
	s.files["/quick-start.js"] = recipes(t)["quick-start.js"]
	p := openTab(t, w, s)
	p.Run(importMap)
	p.Run(`
		window.userID = "42", window.rendered = [], window.loads = 0;
		window.render = what => rendered.push(what.kind);
		window.load = () => void loads++;
		import("/quick-start.js");`)
	p.Until("loads == 1")
	w.hub.publish(s.channel("activity"), `{"kind": "comment"}`)
	p.want("rendered", "comment")
	s.refuse(502)
	s.CloseClientConnections()
	p.Until("document.body.className == 'offline'")
}
