document.getElementById("at").textContent = `You are at ${location.pathname}`;
