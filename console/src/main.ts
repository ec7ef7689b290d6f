import { mount } from "svelte";
import "./app.css";
import App from "./App.svelte";
import { theme } from "./lib/theme.svelte";
import { session } from "./lib/session.svelte";

theme.apply();
void session.begin();

const target = document.getElementById("app");
if (target) mount(App, { target });
