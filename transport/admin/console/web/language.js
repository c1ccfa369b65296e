// The console is in English. uPlot passes navigator.language to Intl when it is loaded, which throws
// unless it is a language tag: in WebKitGTK it is "C" if the system's locale is C.UTF-8.
Object.defineProperty(navigator, "language", { value: "en" });
