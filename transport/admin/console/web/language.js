// The console is in English. When uPlot is loaded, it passes navigator.language to Intl, which throws if
// it is not a language tag. In WebKitGTK, it is "C" if the locale of the system is C.UTF-8.
Object.defineProperty(navigator, "language", { value: "en" });
